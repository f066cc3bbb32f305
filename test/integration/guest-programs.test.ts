/** The guest's own tiny programs, run by this host's kernel. */
import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { outcomes, setUpLink } from '../../src/agent/rtnetlink.ts';
import { podSetupProgram } from '../../src/guest-image/pod-setup-program.ts';
import { pourProgram } from '../../src/guest-image/pour-program.ts';

const run = promisify(execFile);

let directory: string;
let pour: string;
let setUp: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'infralet-programs-'));
  pour = join(directory, 'pour');
  setUp = join(directory, 'set-up-pod');
  await writeFile(pour, pourProgram(), { mode: 0o755 });
  await writeFile(setUp, podSetupProgram(), { mode: 0o755 });
});
afterAll(async () => await rm(directory, { recursive: true, force: true }));

/** Its output and exit code, with these pieces as its input, one write each. */
async function feed(program: string, args: readonly string[], pieces: readonly Buffer[]) {
  const child = spawn(program, [...args], { stdio: ['pipe', 'pipe', 'ignore'] });
  // It may end before it has read everything.
  child.stdin.on('error', () => undefined);
  const gone = once(child, 'exit');
  const output = buffer(child.stdout);
  for (const piece of pieces) await new Promise<void>((resolve) => child.stdin.write(piece, () => resolve()));
  child.stdin.end();
  const [code] = await gone;
  return { code: Number(code), output: await output };
}

test('pour passes everything on until the input ends, in order', async () => {
  const pieces = Array.from({ length: 50 }, (_, index) => randomBytes(1 + index * 1000));
  const { code, output } = await feed(pour, ['10000000'], pieces);
  expect(code).toBe(0);
  expect(output.equals(Buffer.concat(pieces))).toBe(true);
});

test('pour never takes more than it was told to, and leaves the rest', async () => {
  const text = randomBytes(300_000);
  const file = join(directory, 'input');
  await writeFile(file, text);
  const script = `exec 3<"$1"; "$0" 100000 <&3 | sha256sum; "$0" 7 <&3 | sha256sum; cat <&3 | sha256sum`;
  const { stdout } = await run('sh', ['-c', script, pour, file]);
  const parts = [text.subarray(0, 100_000), text.subarray(100_000, 100_007), text.subarray(100_007)];
  const sums = await Promise.all(parts.map(async (part) => (await feed('sha256sum', [], [part])).output.toString()));
  expect(stdout).toBe(sums.join(''));
});

test('pour says when it cannot do what it was told to', async () => {
  for (const args of [[], ['12x'], ['-1'], ['1', '2']]) expect((await feed(pour, args, [])).code, args.join()).toBe(1);
  expect((await feed(pour, ['0'], [Buffer.from('x')])).output.length).toBe(0);
  const full = await run('sh', ['-c', `echo text | "$0" 10 >/dev/full; echo $?`, pour]);
  expect(full.stdout.trim()).toBe('1');
});

/** The kernel may have made links of its own before. */
const INDEX = 77;

const LINK = {
  placeholder: '169.254.1.1/32',
  mac: '02:11:22:33:44:55',
  mtu: 1400,
  addresses: [{ address: '10.9.8.7/24' }, { address: 'fd00:1::7/64' }],
  routes: [
    { destination: '169.254.7.7/32', gateway: '' },
    { destination: '10.77.0.0/16', gateway: '169.254.7.7' },
    { destination: '0.0.0.0/0', gateway: '10.9.8.1' },
    { destination: '::/0', gateway: 'fd00:1::1' },
  ],
};

/** In new namespaces with a link that is down and has the placeholder; what they look like afterwards. */
async function inNamespaces(input: Buffer) {
  const file = join(directory, 'messages');
  await writeFile(file, input);
  const script = [
    `ip link add eth0 index ${INDEX} type veth peer name other`,
    'ip link set other up',
    `ip addr add ${LINK.placeholder} dev eth0`,
    `"$0" <"$1" >"$1.answers"; echo "code $?"`,
    'hostname; ip -o link show dev eth0; ip -o addr show dev eth0; ip -4 route; ip -6 route',
  ].join('\n');
  const { stdout } = await run('unshare', ['-n', '-u', 'sh', '-c', script, setUp, file]);
  return { seen: stdout, answers: await run('base64', ['-w0', `${file}.answers`]) };
}

function input(name: string, index: number): { readonly bytes: Buffer; readonly count: number } {
  const { bytes, count } = setUpLink({ ...LINK, index });
  const lengths = Buffer.alloc(8);
  lengths.writeUInt32LE(name.length, 0);
  lengths.writeUInt32LE(bytes.length, 4);
  return { bytes: Buffer.concat([lengths, Buffer.from(name), bytes]), count };
}

test('a pod gets its name, its hardware address, its addresses and its routes in one go', async () => {
  const { bytes, count } = input('my-pod', INDEX);
  const { seen, answers } = await inNamespaces(bytes);
  expect(seen).toContain('code 0\nmy-pod\n');
  expect(outcomes(Buffer.from(answers.stdout, 'base64'))).toEqual(Array.from({ length: count }, () => 0));
  expect(seen).toMatch(/eth0@other: <[A-Z,_]*\bUP\b.* mtu 1400 .*link\/ether 02:11:22:33:44:55/);
  expect(seen).not.toContain('169.254.1.1');
  expect(seen).toContain('inet 10.9.8.7/24 scope global eth0');
  expect(seen).toContain('inet6 fd00:1::7/64 scope global');
  expect(seen).toMatch(/^169\.254\.7\.7 dev eth0 scope link/m);
  expect(seen).toMatch(/^10\.77\.0\.0\/16 via 169\.254\.7\.7 dev eth0/m);
  expect(seen).toMatch(/^default via 10\.9\.8\.1 dev eth0/m);
  expect(seen).toMatch(/^default via fd00:1::1 dev eth0/m);
});

test('what the kernel does not like is in its answers; what is no such input is refused', async () => {
  const wrong = await inNamespaces(input('my-pod', 99).bytes);
  expect(wrong.seen).toContain('code 0');
  expect(outcomes(Buffer.from(wrong.answers.stdout, 'base64')).every((outcome) => outcome < 0)).toBe(true);
  const { bytes } = input('my-pod', INDEX);
  for (const cut of [bytes.subarray(0, 7), bytes.subarray(0, -1), Buffer.concat([bytes, Buffer.from('x')])]) {
    expect((await inNamespaces(cut)).seen).toContain('code 1');
  }
});
