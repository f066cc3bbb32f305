/** The daemon's side of bench:lists, a process of its own: begins as src/main.ts does. */
import { keepHeapSmall } from '../../src/base/small-heap.ts';

keepHeapSmall();
const { serveWorld } = await import('./lists-world.ts');
await serveWorld(process.argv[2] ?? '');
