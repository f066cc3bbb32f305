import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { countTests } from '../../../src/bootstrap/checks.mjs';
import { checkHost } from '../../../src/bootstrap/host.mjs';
import { matches } from '../../../src/bootstrap/modules.mjs';
import { digestOf } from '../../../src/bootstrap/stamp.mjs';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'infralet-bootstrap-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

describe('checkHost', () => {
  const host = { platform: 'linux', arch: 'x64', uid: 0, node: '20.19.0' };

  it('accepts root on x86-64 Linux', () => {
    expect(() => checkHost('start', true, host)).not.toThrow();
  });

  it('accepts any user for what needs no root', () => {
    expect(() => checkHost('test', false, { ...host, uid: 1000 })).not.toThrow();
  });

  it.each([
    ['another user', { uid: 1000 }, /sudo npm start/],
    ['another system', { platform: 'darwin' }, /Debian 12/],
    ['another processor', { arch: 'arm64' }, /Debian 12/],
    ['an old Node', { node: '18.1.0' }, /Node 20/],
  ])('names the next command for %s', (_, change, fix) => {
    expect(() => checkHost('start', true, { ...host, ...change })).toThrow(
      expect.objectContaining({ fix: expect.stringMatching(fix), exitCode: 1 }),
    );
  });
});

describe('digestOf', () => {
  it('changes with content, names and existence, and with nothing else', () => {
    mkdirSync(join(directory, 'a'));
    writeFileSync(join(directory, 'a', 'x'), '1');
    const first = digestOf(directory, ['a', 'b']);
    expect(digestOf(directory, ['a', 'b'])).toBe(first);
    writeFileSync(join(directory, 'a', 'x'), '2');
    const second = digestOf(directory, ['a', 'b']);
    expect(second).not.toBe(first);
    writeFileSync(join(directory, 'b'), '');
    expect(digestOf(directory, ['a', 'b'])).not.toBe(second);
  });
});

describe('matches', () => {
  const lock = JSON.stringify({
    packages: {
      '': {},
      'node_modules/a': { version: '1.0.0', integrity: 'sha512-a' },
      'node_modules/other-platform': { version: '1.0.0', optional: true },
    },
  });
  const installed = (packages: Record<string, unknown>): string => {
    const file = join(directory, 'installed.json');
    writeFileSync(file, JSON.stringify({ packages }));
    return file;
  };

  it('accepts what the lock file asks for, without the packages of other platforms', () => {
    expect(matches(lock, installed({ 'node_modules/a': { version: '1.0.0', integrity: 'sha512-a' } }))).toBe(true);
  });

  it.each([
    ['nothing installed', {}],
    ['another version', { 'node_modules/a': { version: '1.0.1', integrity: 'sha512-a' } }],
    ['other content', { 'node_modules/a': { version: '1.0.0', integrity: 'sha512-b' } }],
    [
      'a package too many',
      { 'node_modules/a': { version: '1.0.0', integrity: 'sha512-a' }, 'node_modules/c': { version: '1.0.0' } },
    ],
  ])('refuses %s', (_, packages) => {
    expect(matches(lock, installed(packages))).toBe(false);
  });

  it('refuses a directory that npm did not finish', () => {
    expect(matches(lock, join(directory, 'absent'))).toBe(false);
  });
});

describe('countTests', () => {
  it('counts tests, and a file that cannot be loaded as a failure of its own', () => {
    const report = {
      numPassedTests: 3,
      numFailedTests: 1,
      testResults: [
        { status: 'passed', assertionResults: [{ status: 'passed' }, { status: 'passed' }] },
        { status: 'failed', assertionResults: [{ status: 'passed' }, { status: 'failed' }] },
        { status: 'failed', assertionResults: [] },
      ],
    };
    expect(countTests(report)).toEqual({ passed: 3, failed: 2 });
  });
});
