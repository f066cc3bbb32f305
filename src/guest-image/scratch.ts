/**
 * The scratch disk's base: an ext4 file system that already holds containerd's state with the pause image unpacked, so that
 * a machine's first sandbox imports nothing. The guest's own containerd makes that state, in namespaces of its own.
 */
import { mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { InfraletError } from '../base/errors.ts';
import { run, tryRun } from '../base/process.ts';

/** For containerd to start and import one small image; it takes 1 s. */
const PRELOAD_MS = 120_000;

/** Largest scratch disk, in blocks of 4 KiB: 1 TiB. */
const MAX_BLOCKS = 2 ** 28;

const PRELOAD_CONFIG = `version = 2
root = "/scratch/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri"]
[grpc]
  address = "/run/containerd.sock"
[debug]
  level = "warn"
`;

/**
 * Runs with the packages' tree as root, in mount, PID and network namespaces of its own: when it ends, everything it
 * started and mounted is gone. $1: tree, $2: scratch directory, $3: image reference.
 */
const PRELOAD_SCRIPT = `set -eu
tree=$1
mkdir -p "$tree/proc" "$tree/run" "$tree/tmp" "$tree/scratch" "$tree/dev" "$tree/etc"
for link in bin sbin lib lib64; do [ -e "$tree/$link" ] || ln -s "usr/$link" "$tree/$link"; done
mount -t proc proc "$tree/proc"
mount -t tmpfs run "$tree/run"
mount -t tmpfs tmp "$tree/tmp"
mount --bind /dev "$tree/dev"
mount --bind "$2" "$tree/scratch"
cp "$2/../preload.toml" "$2/../pause.tar" "$tree/run/"
chroot "$tree" /usr/bin/containerd --config /run/preload.toml &
daemon=$!
ctr() { chroot "$tree" /usr/bin/ctr --address /run/containerd.sock --namespace k8s.io "$@"; }
tries=0
until ctr version >/dev/null 2>&1; do
  kill -0 $daemon 2>/dev/null || { echo "containerd ended" >&2; exit 1; }
  tries=$((tries + 1))
  [ $tries -lt 300 ] || { echo "containerd does not answer" >&2; exit 1; }
  sleep 0.1
done
ctr images import --snapshotter overlayfs /run/pause.tar
ctr images label "$3" io.cri-containerd.image=managed io.cri-containerd.pinned=pinned >/dev/null
ctr images list --quiet | grep -Fxq "$3"
ctr snapshots list | grep -q Committed
kill $daemon
wait $daemon || true
sync
`;

/** Fills `directory` (made here, below `workDir`) with containerd's state. */
export async function preloadContainerd(options: {
  readonly packages: string;
  readonly workDir: string;
  readonly pauseImage: Uint8Array;
  readonly reference: string;
  readonly signal: AbortSignal;
}): Promise<string> {
  const { workDir } = options;
  const directory = join(workDir, 'scratch');
  await mkdir(directory, { recursive: true });
  await writeFile(join(workDir, 'preload.toml'), PRELOAD_CONFIG);
  await writeFile(join(workDir, 'pause.tar'), options.pauseImage);
  const result = await tryRun(
    'unshare',
    [
      ...['--mount', '--pid', '--net', '--ipc', '--fork', '--kill-child', '--propagation', 'private', '--'],
      ...['sh', '-c', PRELOAD_SCRIPT, 'preload', options.packages, directory, options.reference],
    ],
    { signal: options.signal, timeoutMs: PRELOAD_MS },
  );
  if (result.exitCode !== 0) {
    throw new InfraletError(
      'INTERNAL',
      `the pause image cannot be preloaded: ${result.stderr.trim().slice(-1500) || `exit code ${result.exitCode}`}`,
      { hint: 'the build needs the overlay file system and namespaces; inside a container it needs a privileged one' },
    );
  }
  return directory;
}

/**
 * No journal and no checksums: a scratch disk does not outlive its machine. Sparse, as nothing has to be written out. Small,
 * with room in its tables to grow online to the size of the machine's disk.
 */
export async function makeScratch(
  directory: string,
  file: string,
  options: { readonly bytes: number; readonly uuid: string; readonly signal: AbortSignal },
): Promise<void> {
  await using handle = await open(file, 'wx');
  await handle.truncate(options.bytes);
  await run(
    'mke2fs',
    [
      ...['-q', '-F', '-t', 'ext4', '-b', '4096', '-i', '16384', '-m', '0', '-L', 'scratch', '-U', options.uuid],
      ...['-O', '^has_journal,^metadata_csum,uninit_bg,resize_inode'],
      // The file is all zeros: inode tables need no writing, neither now nor by the guest's kernel later.
      ...['-E', `nodiscard,lazy_itable_init=1,assume_storage_prezeroed=1,root_owner=0:0,resize=${MAX_BLOCKS}`],
      ...['-d', directory, file],
    ],
    { signal: options.signal, timeoutMs: 120_000 },
  );
}
