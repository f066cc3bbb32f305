/** Pulls the images of its command line one after the other; made to be killed. argv: stateDir registriesConf image… */
import { openStore, soon } from './image-bench.ts';

const [stateDir = '', registriesConf = '', ...names] = process.argv.slice(2);
await using images = await openStore(stateDir, { registriesConf });
for (const name of names) await images.pull(name, undefined, soon(300));
