/** What Exec and Attach have in common. The rules are those of every Kubernetes streaming server. */
import { invalid } from './fields.ts';

interface Streams {
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
}

export function checkStreams({ tty, stdin, stdout, stderr }: Streams): void {
  if (!stdin && !stdout && !stderr) invalid('stdout', 'one of stdin, stdout and stderr must be true');
  if (tty && stderr) invalid('stderr', 'must be false with tty: a terminal has one output');
}
