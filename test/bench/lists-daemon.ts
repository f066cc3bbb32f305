/** The daemon's side of bench:lists, a process of its own: begins as src/main.ts does. */
import { keepYoungSpaceSmall } from '../../src/base/young-space.ts';

keepYoungSpaceSmall();
const { serveWorld } = await import('./lists-world.ts');
await serveWorld(process.argv[2] ?? '');
