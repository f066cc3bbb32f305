/** Puts `serve` together with the daemon and, where wanted, the demo pod. */
import type { Config } from '../config/schema.ts';
import type { Io } from './io.ts';
import { serve } from './serve.ts';

export async function serveCommand(
  config: Config,
  io: Io,
  options: { readonly demo: boolean; readonly config?: string },
): Promise<void> {
  const { startDaemon } = await import('../daemon.ts');
  await serve(config, io, {
    startDaemon,
    demo: options.demo ? (settings, to) => demoOf(settings, to, options.config) : undefined,
    terminal: process.stderr.isTTY,
  });
}

async function demoOf(config: Config, io: Io, configFile: string | undefined): Promise<AsyncDisposable> {
  const [{ runDemo }, { connectCri }, { connectAdmin }, image] = await Promise.all([
    import('./demo.ts'),
    import('./cri-client.ts'),
    import('../admin/client.ts'),
    import('../image/demo.ts'),
  ]);
  await using stack = new AsyncDisposableStack();
  const cri = stack.use(connectCri(config.server.socket));
  const admin = stack.use(connectAdmin(config.server.socket));
  stack.use(
    await runDemo({ cri, admin, image: { name: image.DEMO_IMAGE, make: image.makeDemoImage }, configFile }, config, io),
  );
  return stack.move();
}
