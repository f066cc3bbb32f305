/** The daemon is killed while pods run and while they are made; nothing is lost and nothing stays behind. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { until } from '../../src/base/time.ts';
import { runStream } from '../support/cri-streams.ts';
import { BOOT_MS, TestNode } from '../support/node.ts';
import { podConfigFor, TestPod } from '../support/pods.ts';

const seconds = (n: number) => AbortSignal.timeout(n * 1000);

let node: TestNode;
beforeAll(async () => {
  node = await TestNode.start();
});
afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

test('a running pod goes on through kill -9: listed, logged line by line, reached by exec and attach', async () => {
  const pod = await TestPod.run(node);
  const counter = await pod.start('i=0; while :; do echo line $i; i=$((i+1)); sleep 0.05; done');
  const brief = await pod.start('sleep 3; echo gone while nobody looked; exit 5');
  await counter.logged('line 10');
  const before = await node.machines();
  for (let round = 0; round < 3; round += 1) {
    await node.kill();
    // Nobody is there who could tell that the brief one has ended.
    if (round === 0) await new Promise((resolve) => setTimeout(resolve, 4000));
    await node.boot();
    const { items } = await node.cri.ListPodSandbox();
    expect(items).toMatchObject([{ id: pod.id, state: 'SANDBOX_READY' }]);
  }
  expect(await node.machines()).toEqual(before);
  const { stdout } = await until(() => counter.exec('/bin/echo', 'back').catch(() => undefined), {
    everyMs: 100,
    signal: seconds(60),
  });
  expect(stdout).toBe('back\n');
  expect(await brief.exited()).toMatchObject({ exitCode: 5 });
  expect((await brief.logLines()).at(-1)).toMatch(/gone while nobody looked$/);
  const { url } = await node.cri.Attach({ containerId: counter.id, stdout: true, stderr: true });
  const stop = new AbortController();
  let heard = '';
  await runStream(url, {
    signal: stop.signal,
    onOutput: (text) => {
      heard += text;
      if (heard.includes('line')) stop.abort();
    },
  });
  expect(heard).toContain('line');
  await node.cri.StopContainer({ containerId: counter.id, timeout: '0' }, { timeoutMs: 30_000 });
  const numbers = (await counter.logLines()).map((line) => Number(line.split(' ').at(-1)));
  expect(numbers.length).toBeGreaterThan(50);
  expect(numbers).toEqual(numbers.map((_, index) => index));
  await pod.remove();
});

test('a pod whose creation was cut short is finished when the kubelet asks again, with one machine only', async () => {
  const config = podConfigFor(node);
  const first = node.cri.RunPodSandbox({ config }, { timeoutMs: BOOT_MS });
  first.catch(() => undefined);
  await node.untilMachines(1);
  const [machine] = await node.machines();
  await node.kill();
  await expect(first).rejects.toThrow();
  await node.boot();
  const { podSandboxId } = await node.cri.RunPodSandbox({ config }, { timeoutMs: BOOT_MS });
  expect(await node.machines()).toEqual([machine]);
  const again = await node.cri.RunPodSandbox({ config }, { timeoutMs: BOOT_MS });
  expect(again.podSandboxId).toBe(podSandboxId);
  await node.cri.RemovePodSandbox({ podSandboxId }, { timeoutMs: 60_000 });
  expect(await node.machines()).toEqual([]);
});

test('a machine that dies makes its pod NotReady, its containers exited, and leaves nothing', async () => {
  const privileged = { linux: { securityContext: { privileged: true } } };
  const pod = await TestPod.run(node, privileged);
  const app = await pod.start('sleep 1000');
  // From inside, as a kernel that crashes; the call may end with the machine.
  await pod.start('sleep 1; echo c > /proc/sysrq-trigger', privileged).catch(() => undefined);
  const gone = await until(
    async () => {
      const { status } = await node.cri.PodSandboxStatus({ podSandboxId: pod.id });
      return status?.state === 'SANDBOX_NOTREADY' ? status : undefined;
    },
    { everyMs: 100, signal: seconds(90) },
  );
  expect(gone).toMatchObject({ state: 'SANDBOX_NOTREADY' });
  expect(await app.status()).toMatchObject({ state: 'CONTAINER_EXITED', exitCode: 137, reason: 'MachineLost' });
  await node.untilMachines(0);
  await pod.remove();
});

test('SIGTERM ends the daemon in good order; machines wait for the next one', async () => {
  const pod = await TestPod.run(node);
  const app = await pod.start('sleep 1000');
  await node.kill('SIGTERM');
  expect(await node.machines()).toHaveLength(1);
  await node.boot();
  await until(() => app.exec('/bin/true').catch(() => undefined), { everyMs: 100, signal: seconds(60) });
  await pod.remove();
});
