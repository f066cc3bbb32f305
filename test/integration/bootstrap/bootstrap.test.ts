import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const BOOTSTRAP = join(import.meta.dirname, '../../../src/bootstrap');

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'infralet-bootstrap-'));
});
afterEach(async () => rm(directory, { recursive: true }));

/** Runs a module of the bootstrap in a process of its own, with only the test's programs in PATH. */
async function evaluate(script: string, path = directory): Promise<{ code: number | null; stderr: string }> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    env: { PATH: path, STATE: directory },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const [stderr, [code]] = await Promise.all([text(child.stderr), once(child, 'close') as Promise<[number | null]>]);
  return { code, stderr };
}

async function program(name: string, script: string): Promise<void> {
  await writeFile(join(directory, name), `#!/bin/sh\n${script}\n`);
  await chmod(join(directory, name), 0o755);
}

const install = (...packages: readonly string[]): string => `
  const { installPackages } = await import(${JSON.stringify(join(BOOTSTRAP, 'host.mjs'))});
  try {
    await installPackages(${JSON.stringify(packages)});
  } catch (error) {
    process.stderr.write(error.message + ' → ' + error.fix + '\\n');
    process.exitCode = error.exitCode;
  }`;

describe('OS packages', () => {
  it('asks apt for nothing while everything is installed', async () => {
    await program('dpkg-query', 'echo "skopeo installed"; echo "cpio installed"');
    expect(await evaluate(install('skopeo', 'cpio'))).toEqual({ code: 0, stderr: '' });
  });

  it('names the packages and the command where there is no apt-get', async () => {
    await program('dpkg-query', 'echo "cpio installed"; exit 1');
    const { code, stderr } = await evaluate(install('skopeo', 'cpio'));
    expect(code).toBe(1);
    expect(stderr).toMatch(/no apt-get.*missing: skopeo → .*apt-get install --no-install-recommends -y skopeo\n/);
  });

  it('updates the lists when apt does not know a package, then installs only what is missing', async () => {
    await program('dpkg-query', 'echo "cpio installed"; [ -e "$STATE/done" ] && echo "skopeo installed"; exit 0');
    await program(
      'apt-get',
      `echo "$*" >> "$STATE/calls"
       case "$*" in
         *--simulate*) exit 100 ;;
         *install*) : > "$STATE/done"; echo "Setting up skopeo (1.9)" ;;
       esac`,
    );
    const { code, stderr } = await evaluate(install('skopeo', 'cpio'));
    expect(code).toBe(0);
    expect(stderr).toContain('Setting up skopeo (1.9)');
    const calls = (await readFile(join(directory, 'calls'), 'utf8')).trim().split('\n');
    expect(calls.map((call) => call.replace(/-o \S+ /g, ''))).toEqual(
      [
        '--version',
        'install --simulate --no-install-recommends skopeo',
        'update',
        'install -y --no-install-recommends -o DPkg::Lock::Timeout=120 skopeo',
      ].map((call) => call.replace(/-o \S+ /g, '')),
    );
  });

  it('shows what apt said when it fails, and the command to run by hand', async () => {
    await program('dpkg-query', 'exit 1');
    await program('apt-get', 'case "$*" in *--version*) ;; *) echo "E: no space left" >&2; exit 100 ;; esac');
    const { code, stderr } = await evaluate(install('skopeo'));
    expect(code).toBe(1);
    expect(stderr).toContain('E: no space left');
    expect(stderr).toContain('apt-get update');
  });
});

describe('the child in the foreground', () => {
  const run = (script: string): string => `
    const { foreground } = await import(${JSON.stringify(join(BOOTSTRAP, 'child.mjs'))});
    process.exitCode = await foreground('/bin/sh', ['-c', ${JSON.stringify(script)}]);`;

  it('gives its exit code on', async () => {
    expect((await evaluate(run('exit 7'), '/usr/bin:/bin')).code).toBe(7);
    expect((await evaluate(run('kill -9 $$'), '/usr/bin:/bin')).code).toBe(137);
  });

  it('receives a signal once, however often it arrives within an instant, and is waited for', async () => {
    const script = `
      import { foreground } from ${JSON.stringify(join(BOOTSTRAP, 'child.mjs'))};
      const child = "let n = 0; process.on('SIGTERM', () => { n++; setTimeout(() => process.exit(n), 100); }); setInterval(() => {}, 1000); console.log('up')";
      process.exitCode = await foreground(process.execPath, ['-e', child]);`;
    const outer = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(createInterface({ input: outer.stdout }), 'line');
    const closed = once(outer, 'close') as Promise<[number | null]>;
    outer.kill('SIGTERM');
    outer.kill('SIGTERM');
    expect((await closed)[0]).toBe(1);
  });
});

describe('the command line', () => {
  it.each([
    [['nonsense'], /there is no mode nonsense/],
    [['start', '--nope'], /--nope[\s\S]*usage: npm start/],
    [['test', 'nope'], /there is no check nope[\s\S]*choose of: types/],
  ])('%j ends with 2 and the right usage', async (args, message) => {
    const child = spawn(process.execPath, [join(BOOTSTRAP, 'main.mjs'), ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const [stderr, [code]] = await Promise.all([text(child.stderr), once(child, 'close') as Promise<[number | null]>]);
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
  });
});
