import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { allPaths } from '../../../src/config/json-schema.ts';
import { formatProblem, parseConfig } from '../../../src/config/parse.ts';

function problems(text: string): readonly string[] {
  const parsed = parseConfig(text);
  return parsed.ok ? [] : parsed.problems.map(formatProblem);
}

describe('parseConfig', () => {
  it('fills in every default for an empty file', () => {
    const parsed = parseConfig('# nothing\n');
    expect(parsed.ok && parsed.config.provider).toBe('qemu');
    expect(parsed.ok && parsed.config.machine.bootTimeout).toBe(120_000);
    expect(parsed.ok && parsed.config.server.maxMessage).toBe(16 * 1024 * 1024);
  });

  it('names every problem with its line and path, in the order of the file', () => {
    const text = [
      'server:',
      '  sokket: /x',
      '  drain: 10',
      'machine:',
      '  minMemory: lots',
      'log: {level: loud}',
      'runtimeHandlers: ["", 5]',
    ].join('\n');
    expect(problems(text)).toEqual([
      'line 2: server.sokket: unknown key; did you mean server.socket?',
      'line 3: server.drain: 10 has no unit I know; write it like "60s"',
      'line 5: machine.minMemory: "lots" has no unit I know; write it like "512Mi"',
      expect.stringMatching(/^line 6: log\.level: expected one of .*\(it is "loud"\)$/),
      'line 7: runtimeHandlers.1: expected string, received number (it is 5)',
    ]);
  });

  it('finds a key that stands in the wrong section', () => {
    expect(problems('maxCopyBytes: 1Gi\n')).toEqual([
      'line 1: maxCopyBytes: unknown key here; did you mean policy.maxCopyBytes?',
    ]);
    expect(problems('server:\n  state-dir: /x\n')).toEqual([
      'line 2: server.state-dir: unknown key here; did you mean stateDir?',
    ]);
  });

  it('says where YAML itself is broken', () => {
    expect(problems('server:\n  socket: "/x\nlog: {}\n')[0]).toMatch(/^line \d+: /);
    expect(problems('provider: qemu\nprovider: qemu\n')[0]).toMatch(/^line 2: .*unique/);
    expect(problems('- a\n')[0]).toMatch(/expected object/);
  });

  it('refuses a bomb of aliases and a file that is too large', () => {
    const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefgh'
      .split('')
      .map((name, index) => {
        const before = 'abcdefg'[index] ?? 'a';
        return `${name}: &${name} [${Array.from({ length: 9 }, () => `*${before}`).join(',')}]`;
      })
      .join('\n')}\n`;
    expect(problems(bomb)[0]).toMatch(/alias/i);
    expect(problems(`# ${'x'.repeat(1024 * 1024)}`)).toEqual(['is larger than 1 MiB']);
  });

  it('checks settings against each other', () => {
    expect(problems('machine:\n  minMemory: 1Gi\n  maxMemory: 512Mi\n')).toContain(
      'line 3: machine.maxMemory: is less than machine.minMemory',
    );
    expect(problems('pki:\n  leafLife: 1h\n')).toEqual(
      ['pki.renewBefore: must be shorter than pki.leafLife'].map((line) => `line 1: ${line}`),
    );
    expect(problems(`server:\n  socket: /${'x'.repeat(107)}\n`)[0]).toMatch(/line 2: server.socket: is longer/);
  });

  it('leaves a provider section to the provider', () => {
    const parsed = parseConfig('providers: {qemu: {anything: [1]}}');
    expect(parsed.ok && parsed.config.providers).toEqual({ qemu: { anything: [1] } });
  });

  it('never throws, whatever the text', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json(),
          fc.jsonValue().map((value) => stringify(value)),
        ),
        (text) => {
          const parsed = parseConfig(text);
          expect(parsed.ok || parsed.problems.length > 0).toBe(true);
        },
      ),
    );
  });

  it('suggests the key itself after any single slip', () => {
    const keys = allPaths().filter((path) => !path.includes('.') && path.length > 3);
    fc.assert(
      fc.property(fc.constantFrom(...keys), fc.nat(), (key, at) => {
        const position = at % key.length;
        const slip = `${key.slice(0, position)}${key.slice(position + 1)}`;
        fc.pre(!keys.includes(slip));
        expect(problems(`${slip}: {}\n`)[0]).toContain('did you mean');
      }),
    );
  });
});
