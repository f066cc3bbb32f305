import { defineConfig } from 'vitest/config';

// Running node_modules/.bin/vitest by hand picks the system's Node; failing early explains the strange errors after it.
if (Number(process.versions.node.split('.')[0]) < 24) {
  throw new Error(
    `the tests need Node 24, this is ${process.version}: run "npm test", or put node_modules/.bin first in PATH`,
  );
}

/** Real programs share this host (namespaces, taps, ports): one file at a time. */
const serial = { fileParallelism: false, isolate: true } as const;

export default defineConfig({
  test: {
    passWithNoTests: true,
    reporters: ['default'],
    projects: [
      {
        test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 20_000 },
      },
      {
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          ...serial,
        },
      },
      {
        test: {
          name: 'conformance',
          include: ['test/conformance/**/*.test.ts'],
          testTimeout: 300_000,
          hookTimeout: 300_000,
          ...serial,
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          globalSetup: ['test/support/e2e-setup.ts'],
          testTimeout: 300_000,
          hookTimeout: 600_000,
          // Each file has a node, a bridge and a subnet of its own; an emulated machine has one processor and often waits.
          maxWorkers: 2,
        },
      },
    ],
  },
});
