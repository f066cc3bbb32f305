/** The files of a machine that the agent samples: contents of real ones, below another root. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const BUNDLES = 'run/containerd/io.containerd.runtime.v2.task/k8s.io';

export function writeGroup(directory: string): void {
  const files = {
    'cpu.stat':
      'usage_usec 5120341\nuser_usec 4100000\nsystem_usec 1020341\nnice_usec 0\ncore_sched.force_idle_usec 0\n' +
      'nr_periods 220\nnr_throttled 17\nthrottled_usec 812345\nnr_bursts 0\nburst_usec 0\n',
    'cpu.pressure':
      'some avg10=1.53 avg60=0.87 avg300=0.25 total=123456\nfull avg10=0.10 avg60=0.00 avg300=0.00 total=789\n',
    'memory.current': '31457280\n',
    'memory.max': '67108864\n',
    'memory.peak': '41943040\n',
    'memory.stat':
      'anon 10485760\nfile 20971520\nkernel 1048576\nkernel_stack 49152\npagetables 131072\nfile_mapped 4194304\n' +
      'file_dirty 0\nanon_thp 0\ninactive_anon 2097152\nactive_anon 8388608\ninactive_file 8388608\n' +
      'active_file 12582912\nunevictable 0\npgfault 12345\npgmajfault 67\nworkingset_refault_file 3\n',
    'memory.events': 'low 0\nhigh 0\nmax 5\noom 1\noom_kill 1\noom_group_kill 0\n',
    'memory.swap.current': '0\n',
    'memory.swap.max': 'max\n',
    'pids.current': '4\n',
    'pids.max': '100\n',
    'io.stat':
      '254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n254:16 rbytes=1048576 wbytes=8192 rios=12 wios=2 dbytes=0 dios=0\n',
  };
  for (const [name, content] of Object.entries(files)) writeFileSync(join(directory, name), content);
}

/** A pod of two containers, the second of which has no overlay. */
export function writePod(root: string): { readonly containers: readonly string[]; readonly written: string } {
  const [sandbox, ...containers] = ['a', 'b', 'c'].map((letter) => letter.repeat(64));
  const pod = join(root, 'sys/fs/cgroup/pod');
  mkdirSync(join(pod, 'not-a-container'), { recursive: true });
  writeGroup(pod);
  for (const id of [sandbox ?? '', ...containers]) {
    mkdirSync(join(pod, id));
    writeGroup(join(pod, id));
    const bundle = join(root, BUNDLES, id);
    mkdirSync(bundle, { recursive: true });
    const type = id === sandbox ? 'sandbox' : 'container';
    writeFileSync(
      join(bundle, 'config.json'),
      JSON.stringify({ ociVersion: '1.1.0', annotations: { 'io.kubernetes.cri.container-type': type } }),
    );
    writeFileSync(join(bundle, 'init.pid'), id === sandbox ? '4711' : '4712');
  }
  // Its bundle is not there yet: just being made.
  mkdirSync(join(pod, 'd'.repeat(64)));
  const written = join(root, 'scratch', 'snap shots', '3', 'fs');
  mkdirSync(written, { recursive: true });
  writeFileSync(join(written, 'file'), Buffer.alloc(50_000, 7));
  mkdirSync(join(root, 'proc', 'self'), { recursive: true });
  mkdirSync(join(root, 'proc', '4711', 'net'), { recursive: true });
  writeFileSync(
    join(root, 'proc/4711/net/dev'),
    'Inter-| Receive | Transmit\n face |bytes ...\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 1500 3 0 0 0 0 0 0 700 2 0 0 0 0 0 0\n',
  );
  writeFileSync(join(root, 'proc/meminfo'), 'MemTotal:  500000 kB\nSwapTotal:       1024 kB\nSwapFree: 1024 kB\n');
  const octal = (path: string): string => path.replaceAll(' ', '\\040');
  writeFileSync(
    join(root, 'proc/self/mountinfo'),
    '22 1 254:0 / / ro,relatime - erofs /dev/root ro\n' +
      `101 22 0:50 / ${octal(join(root, BUNDLES, containers[0] ?? '', 'rootfs'))} rw,relatime shared:7 - overlay overlay ` +
      `rw,lowerdir=/scratch/snapshots/1/fs:/scratch/snapshots/2/fs,upperdir=${octal(written)},workdir=/scratch/snapshots/3/work\n`,
  );
  return { containers, written };
}
