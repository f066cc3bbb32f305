import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { configJsonSchema, type JsonSchema } from '../../../src/config/json-schema.ts';
import { DEFAULT_CONFIG, loadConfig } from '../../../src/config/load.ts';

describe('loadConfig', () => {
  it('compiles the embedded default', async () => {
    const config = await loadConfig(DEFAULT_CONFIG);
    expect(config.guestImageDir).toBe('/var/lib/infralet/guest');
    expect(config.node).not.toBe('');
    expect(config.server.socket).toBe('/run/infralet/infralet.sock');
  });

  it('names the file that is missing', async () => {
    await expect(loadConfig('/nonexistent/infralet.yaml')).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: expect.stringContaining('/nonexistent/infralet.yaml'),
    });
  });

  it('lists all problems of a file in one error', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'infralet-config-'));
    try {
      const file = join(directory, 'infralet.yaml');
      await writeFile(file, 'stateDirr: /x\nprovider: 3\n');
      await expect(loadConfig(file)).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
        message: expect.stringMatching(/2 problems:\n {2}line 1: stateDirr.*stateDir\?\n {2}line 2: provider/),
      });
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});

describe('JSON schema', () => {
  const leaves = (schema: JsonSchema): readonly JsonSchema[] =>
    Object.values(schema.properties ?? {}).flatMap((inner) => (inner.properties ? leaves(inner) : [inner]));

  it('gives every setting a meaning', () => {
    expect(leaves(configJsonSchema()).filter((leaf) => typeof leaf['description'] !== 'string')).toEqual([]);
    expect(leaves(configJsonSchema()).length).toBeGreaterThan(30);
  });

  it('is the one in config/infralet.schema.json (npm run schema)', async () => {
    const file = await readFile(join(import.meta.dirname, '../../../config/infralet.schema.json'), 'utf8');
    expect(JSON.parse(file)).toEqual(JSON.parse(JSON.stringify(configJsonSchema())));
  });
});
