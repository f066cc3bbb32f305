/** Pods as end-to-end tests use them: few words for what a kubelet says at length. */
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { until } from '../../src/base/time.ts';
import type { ContainerConfig } from '../../src/gen/runtime/v1/ContainerConfig.ts';
import type { PodSandboxConfig } from '../../src/gen/runtime/v1/PodSandboxConfig.ts';
import { BOOT_MS, BUSYBOX, type TestNode } from './node.ts';

const CALL_MS = 60_000;

export class TestPod {
  readonly node: TestNode;
  readonly id: string;
  readonly config: PodSandboxConfig;

  private constructor(node: TestNode, id: string, config: PodSandboxConfig) {
    this.node = node;
    this.id = id;
    this.config = config;
  }

  static async run(node: TestNode, config: PodSandboxConfig = {}): Promise<TestPod> {
    const full = podConfigFor(node, config);
    const { podSandboxId } = await node.cri.RunPodSandbox({ config: full }, { timeoutMs: BOOT_MS });
    return new TestPod(node, podSandboxId, full);
  }

  async ip(): Promise<string> {
    const { status } = await this.node.cri.PodSandboxStatus({ podSandboxId: this.id });
    return status?.network?.ip ?? '';
  }

  /** Creates a container; `script` is run by sh. */
  async create(script: string, config: ContainerConfig = {}): Promise<TestContainer> {
    const name = config.metadata?.name ?? `c${randomUUID().slice(0, 8)}`;
    const full: ContainerConfig = {
      metadata: { name, attempt: 0 },
      image: { image: BUSYBOX },
      command: ['/bin/sh', '-c', script],
      logPath: `${name}.log`,
      linux: {},
      ...config,
    };
    const { containerId } = await this.node.cri.CreateContainer(
      { podSandboxId: this.id, config: full, sandboxConfig: this.config },
      { timeoutMs: CALL_MS },
    );
    return new TestContainer(this, containerId, full);
  }

  /** Creates and starts a container. */
  async start(script: string, config: ContainerConfig = {}): Promise<TestContainer> {
    const container = await this.create(script, config);
    await this.node.cri.StartContainer({ containerId: container.id }, { timeoutMs: CALL_MS });
    return container;
  }

  async stop(): Promise<void> {
    await this.node.cri.StopPodSandbox({ podSandboxId: this.id }, { timeoutMs: CALL_MS });
  }

  async remove(): Promise<void> {
    await this.node.cri.RemovePodSandbox({ podSandboxId: this.id }, { timeoutMs: CALL_MS });
  }
}

export function podConfigFor(node: TestNode, config: PodSandboxConfig = {}): PodSandboxConfig {
  const uid = randomUUID();
  return {
    metadata: { name: `pod-${uid.slice(0, 8)}`, uid, namespace: 'e2e', attempt: 0 },
    logDirectory: join(node.logs, uid),
    linux: {},
    ...config,
  };
}

export class TestContainer {
  readonly pod: TestPod;
  readonly id: string;
  readonly config: ContainerConfig;

  constructor(pod: TestPod, id: string, config: ContainerConfig) {
    this.pod = pod;
    this.id = id;
    this.config = config;
  }

  async exec(...cmd: readonly string[]) {
    const { stdout, stderr, exitCode } = await this.pod.node.cri.ExecSync(
      { containerId: this.id, cmd: [...cmd], timeout: '30' },
      { timeoutMs: CALL_MS },
    );
    return { stdout: stdout.toString(), stderr: stderr.toString(), exitCode };
  }

  /** Output of a script that must succeed. */
  async sh(script: string): Promise<string> {
    const { stdout, stderr, exitCode } = await this.exec('/bin/sh', '-c', script);
    if (exitCode !== 0) throw new Error(`${script}: exit code ${exitCode}: ${stderr}`);
    return stdout.trimEnd();
  }

  async status() {
    const { status } = await this.pod.node.cri.ContainerStatus({ containerId: this.id });
    if (!status) throw new Error('no status');
    return status;
  }

  /** Resolves with the status once the container has exited. */
  async exited() {
    return await until(
      async () => {
        const status = await this.status();
        return status.state === 'CONTAINER_EXITED' ? status : undefined;
      },
      { everyMs: 50, signal: AbortSignal.timeout(60_000) },
    );
  }

  /** Raw lines of its log file on the node. */
  async logLines(): Promise<readonly string[]> {
    const path = join(this.pod.config.logDirectory ?? '', this.config.logPath ?? '');
    const text = await readFile(path, 'utf8').catch(() => '');
    return text.split('\n').filter((line) => line !== '');
  }

  /** Waits until its log has a line that ends with `text`. */
  async logged(text: string): Promise<readonly string[]> {
    return await until(
      async () => {
        const lines = await this.logLines();
        return lines.some((line) => line.endsWith(text)) ? lines : undefined;
      },
      { everyMs: 50, signal: AbortSignal.timeout(60_000) },
    );
  }
}
