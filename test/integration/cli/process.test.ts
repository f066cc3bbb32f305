import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const MAIN = join(import.meta.dirname, '../../../src/main.ts');

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'infralet-cli-'));
});
afterAll(async () => rm(directory, { recursive: true }));

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function infralet(...args: readonly string[]): Promise<Ended> {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close') as Promise<[number | null]>,
  ]);
  return { code, stdout, stderr };
}

describe('the program', () => {
  it('ends with 0 for help, 2 for a wrong command line', async () => {
    expect(await infralet('--help')).toMatchObject({ code: 0, stdout: expect.stringContaining('Usage: infralet') });
    expect(await infralet('frobnicate')).toMatchObject({ code: 2, stderr: expect.stringContaining("'frobnicate'") });
    expect(await infralet('ps', '--nope')).toMatchObject({ code: 2, stderr: expect.stringContaining('--nope') });
  });

  it('says one clear line and a hint for an error, without a stack', async () => {
    const { code, stderr } = await infralet('ps', '--config', join(directory, 'absent.yaml'));
    expect(code).toBe(1);
    expect(stderr.trim().split('\n')).toEqual([
      expect.stringMatching(/^infralet: the configuration file .*absent\.yaml does not exist$/),
      expect.stringMatching(/^ {2}→ /),
    ]);
  });

  it('checks a configuration file, the section of the provider included', async () => {
    const good = join(directory, 'good.yaml');
    await writeFile(good, 'log: {level: debug}\n');
    expect(await infralet('config', 'check', good)).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('in order'),
    });
    const bad = join(directory, 'bad.yaml');
    await writeFile(bad, 'providers: {qemu: {nonsense: 1}}\n');
    expect(await infralet('config', 'check', bad)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('nonsense'),
    });
    const unknown = join(directory, 'unknown.yaml');
    await writeFile(unknown, 'provider: nebula\n');
    expect(await infralet('config', 'check', unknown)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('no provider named nebula'),
    });
  });

  it('prints a JSON Schema', async () => {
    const { stdout } = await infralet('config', 'schema');
    expect(JSON.parse(stdout)).toMatchObject({ type: 'object', additionalProperties: false });
  });

  it('tells what is missing on a host, with the command that mends it', async () => {
    const file = join(directory, 'doctor.yaml');
    await writeFile(
      file,
      `stateDir: ${directory}/state\nimage: {skopeo: no-such-skopeo}\nnetwork: {confDir: embedded, binDirs: [${directory}]}\n`,
    );
    const { code, stdout } = await infralet('doctor', '--json', '--config', file);
    expect(code).toBe(1);
    const checks = JSON.parse(stdout) as readonly { name: string; ok: boolean; detail: string; fix?: string }[];
    const find = (name: string) => checks.find((check) => check.name === name);
    expect(find('image: skopeo')).toMatchObject({ ok: false, fix: 'apt-get install skopeo' });
    expect(find('pod network: CNI')).toMatchObject({ ok: false, detail: expect.stringContaining('bridge') });
    expect(find('program: ip')).toMatchObject({ ok: true });
  });

  it('tells an older Node what to do', async () => {
    const script = `Object.defineProperty(process.versions, 'node', { value: '22.1.0' }); await import(${JSON.stringify(MAIN)});`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'inherit', 'pipe'],
    });
    const [stderr, [code]] = await Promise.all([text(child.stderr), once(child, 'close') as Promise<[number]>]);
    expect({ stderr, code }).toEqual({ stderr: expect.stringContaining('24 or newer is needed'), code: 1 });
  });
});
