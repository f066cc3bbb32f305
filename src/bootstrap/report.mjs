/** What the bootstrap shows: one line per step with the seconds since the start, and errors that name the next command. */

const started = process.hrtime.bigint();

/** Seconds since this process began. */
export function elapsed() {
  return Number(process.hrtime.bigint() - started) / 1e9;
}

/** Second at which the last line was shown. */
let saidAt = 0;

/** @param {string} text */
export function say(text) {
  saidAt = elapsed();
  process.stderr.write(`[${elapsed().toFixed(1).padStart(6)}s] ${text}\n`);
}

/** Ends the bootstrap with a message for the user instead of a stack trace. */
export class SetupError extends Error {
  /**
   * @param {string} message what is wrong
   * @param {string} [fix] the command or the thing to do next
   * @param {number} [exitCode]
   */
  constructor(message, fix, exitCode = 1) {
    super(message);
    this.fix = fix;
    this.exitCode = exitCode;
  }
}

/** Seconds of silence after which a step gives a sign of life. */
const QUIET = 10;

/**
 * Runs one step and reports its begin, a sign of life where nothing else was shown for ten seconds, and its end.
 * @template T
 * @param {string} name
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function step(name, work) {
  say(`${name} …`);
  const begin = elapsed();
  const alive = setInterval(() => {
    if (elapsed() - saidAt >= QUIET) say(`  still at it, ${Math.round(elapsed() - begin)} s so far`);
  }, 1000);
  alive.unref();
  try {
    const result = await work();
    say(`${name}: done in ${(elapsed() - begin).toFixed(1)} s`);
    return result;
  } finally {
    clearInterval(alive);
  }
}
