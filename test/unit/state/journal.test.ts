import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Journal } from '../../../src/state/journal.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'journal-'));
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

describe('Journal', () => {
  test('what was written is there after it is opened again, readable by its owner only', async () => {
    const path = join(directory, 'journal.db');
    {
      using journal = new Journal(path);
      journal.putSandbox('s1', { a: 1 }, Buffer.from('first'));
      journal.putSandbox('s1', { a: 2 }, Buffer.from('ignored: the request never changes'));
      journal.putContainer('c1', 's1', { b: 1 }, Buffer.from('container'));
      journal.addStep('s1', 5, 'machine.launch', 'intent', '');
    }
    using journal = new Journal(path);
    const [row] = journal.all('sandboxes', () => undefined);
    expect(row?.record).toEqual({ a: 2 });
    expect(Buffer.from(row?.request ?? []).toString()).toBe('first');
    expect(journal.steps('s1')).toEqual([{ at: 5, step: 'machine.launch', outcome: 'intent', detail: '' }]);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
  });

  test('forgetting a sandbox takes its containers and steps along', () => {
    using journal = new Journal(':memory:');
    journal.putSandbox('s1', {}, Buffer.alloc(0));
    journal.putContainer('c1', 's1', {}, Buffer.alloc(0));
    journal.putContainer('c2', 's2', {}, Buffer.alloc(0));
    journal.addStep('s1', 1, 'x', 'done', '');
    journal.deleteSandbox('s1');
    expect(journal.all('containers', () => undefined).map(({ id }) => id)).toEqual(['c2']);
    expect(journal.steps('s1')).toEqual([]);
  });

  test('a token can be used once, also across restarts', () => {
    const path = join(directory, 'journal.db');
    {
      using journal = new Journal(path);
      expect(journal.consumeToken('hash', 1)).toBe(true);
    }
    using journal = new Journal(path);
    expect(journal.consumeToken('hash', 2)).toBe(false);
  });

  test('a damaged row is reported and the others are read', () => {
    const path = join(directory, 'journal.db');
    {
      using journal = new Journal(path);
      journal.putSandbox('good', { a: 1 }, Buffer.alloc(0));
      journal.putSandbox('bad', { a: 1 }, Buffer.alloc(0));
    }
    const db = new DatabaseSync(path);
    db.exec(`UPDATE sandboxes SET record = '{"a":' WHERE id = 'bad'`);
    db.close();
    using journal = new Journal(path);
    const bad: string[] = [];
    expect(journal.all('sandboxes', (id) => bad.push(id)).map(({ id }) => id)).toEqual(['good']);
    expect(bad).toEqual(['bad']);
  });

  test('steps of one sandbox are bounded', () => {
    using journal = new Journal(':memory:');
    for (let at = 0; at < 1000; at += 1) journal.addStep('s1', at, 'agent.connect', 'failed', 'no answer');
    const steps = journal.steps('s1');
    expect(steps.length).toBe(200);
    expect(steps.at(-1)?.at).toBe(999);
  });

  test('a second daemon on the same journal is told so', () => {
    const path = join(directory, 'journal.db');
    using _first = new Journal(path);
    expect(() => new Journal(path)).toThrow(/in use by another/);
  });

  test('a journal of a newer version is refused, not misread', () => {
    const path = join(directory, 'journal.db');
    new Journal(path)[Symbol.dispose]();
    const db = new DatabaseSync(path);
    db.exec('PRAGMA user_version = 999');
    db.close();
    expect(() => new Journal(path)).toThrow(/newer Infralet/);
  });
});
