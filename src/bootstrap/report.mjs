/** What the bootstrap shows: one line per step with the seconds since the start, and errors that name the next command. */

const started = process.hrtime.bigint();

/** Seconds since this process began. */
export function elapsed() {
  return Number(process.hrtime.bigint() - started) / 1e9;
}

/** @param {string} text */
export function say(text) {
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

/**
 * Runs one step and reports its begin, a sign of life every ten seconds, and its end.
 * @template T
 * @param {string} name
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function step(name, work) {
  say(`${name} …`);
  const begin = elapsed();
  const alive = setInterval(() => say(`${name}: still at it after ${Math.round(elapsed() - begin)} s`), 10_000);
  alive.unref();
  try {
    const result = await work();
    say(`${name}: done in ${(elapsed() - begin).toFixed(1)} s`);
    return result;
  } finally {
    clearInterval(alive);
  }
}
