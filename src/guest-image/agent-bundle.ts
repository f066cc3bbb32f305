/** Bundles the agent (src/agent/main.ts) into one CommonJS file with the protocol embedded: no files at run time. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { build } from 'esbuild';
import { PROTO_DIR } from '../rpc/load.ts';

/** The parser behind proto-loader; taken from there, so that both are always of one version. */
const PARSER = 'protobufjs';

interface ProtobufJs {
  loadSync(path: string): { toJSON(): object };
}

/**
 * How Node runs the bundle in a machine. Lite mode interprets instead of compiling: the agent waits for I/O, and without
 * compiled code and its feedback it is 15 MB smaller and no slower. A compile cache must be made with the same flags.
 */
export const AGENT_NODE_FLAGS = [
  '--lite-mode',
  '--max-semi-space-size=1',
  '--max-old-space-size=48',
  '--single-threaded-gc',
  // What the rehearsal has compiled stays compiled: a clone would do it again.
  '--no-flush-bytecode',
] as const;

/** Writes the bundle to `outFile`; the same sources and version give the same bytes. */
export async function bundleAgent(outFile: string, version: string): Promise<void> {
  const require = createRequire(import.meta.resolve('@grpc/proto-loader'));
  const protobuf = require(PARSER) as ProtobufJs;
  const descriptor = protobuf.loadSync(join(PROTO_DIR, 'agent', 'v1', 'agent.proto')).toJSON();
  await build({
    entryPoints: [join(import.meta.dirname, '..', 'agent', 'main.ts')],
    outfile: outFile,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node24',
    minify: true,
    legalComments: 'none',
    logLevel: 'silent',
    define: {
      INFRALET_AGENT_PROTO: JSON.stringify(descriptor),
      INFRALET_VERSION: JSON.stringify(version),
      // Only the branch that is not taken in a bundle uses it.
      'import.meta.dirname': '""',
    },
  });
}
