/** Structured logging: constant messages, data in fields, one level per component. */
import { pino } from 'pino';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
type Fields = Readonly<Record<string, unknown>>;

export interface Logger {
  trace(message: string, fields?: Fields): void;
  debug(message: string, fields?: Fields): void;
  info(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  error(message: string, fields?: Fields): void;
  /** A logger whose lines all carry `fields`; a field `component` selects that component's level. */
  child(fields: Fields): Logger;
}

export interface LogOptions {
  readonly level: LogLevel;
  /** Level per component; components not named use `level`. */
  readonly components: Readonly<Record<string, LogLevel>>;
  /** `json` for machines, `pretty` for a terminal. */
  readonly format: 'json' | 'pretty';
  /** File descriptor to write to. @default 2 */
  readonly fd?: number;
}

/** Never written, wherever they appear in the fields. */
const REDACTED = ['auth', 'password', 'identityToken', 'registryToken', 'token', 'secret', 'privateKey', 'userData'];

export function createLogger(options: LogOptions): Logger {
  const destination =
    options.format === 'pretty'
      ? pino.transport({
          target: 'pino-pretty',
          options: { destination: options.fd ?? 2, ignore: 'pid,hostname', translateTime: 'HH:MM:ss.l' },
        })
      : pino.destination({ dest: options.fd ?? 2, sync: true });
  const root = pino(
    {
      level: options.level,
      base: null,
      redact: { paths: REDACTED.flatMap((key) => [key, `*.${key}`]), censor: '[redacted]' },
      serializers: { error: pino.stdSerializers.err },
    },
    destination,
  );
  return wrap(root, options);
}

/** Writes nothing; for tests and for programs that print results only. */
export const nullLogger: Logger = {
  trace() {},
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => nullLogger,
};

function wrap(log: pino.Logger, options: LogOptions): Logger {
  const at =
    (level: 'trace' | 'debug' | 'info' | 'warn' | 'error') =>
    (message: string, fields?: Fields): void => {
      if (fields) log[level](fields, message);
      else log[level](message);
    };
  return {
    trace: at('trace'),
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: (fields) => {
      const component = fields['component'];
      const level = typeof component === 'string' ? options.components[component] : undefined;
      return wrap(log.child(fields, level ? { level } : {}), options);
    },
  };
}
