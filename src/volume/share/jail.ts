/**
 * What a share's server runs in: namespaces and a root of its own that hold the server's programs, the shared directory
 * and nothing else of the node. A guest may talk to the server as it likes and may plant any symlink in the directory;
 * whatever path comes of it ends in here.
 *
 *   mergerfs   shows the directory as a file system of its own. NFS file handles are then numbers that mergerfs gave out;
 *              those of the node's file system, which a guest could guess, mean nothing.
 *   ganesha    serves it by NFS 4. It does not see the directory itself, only what mergerfs shows of it.
 *   socat      the door: a Unix socket that the daemon connects to. The network namespace has a loopback and no more.
 */

export interface JailOptions {
  /** Where the root is put together; an empty directory. */
  readonly jail: string;
  /** Programs and libraries, on a file system that holds nothing else. */
  readonly tree: string;
  readonly source: string;
  readonly readonly: boolean;
}

/** In the jail; it appears when the share can be reached. The node finds it below /proc/PID/root. */
export const SOCKET = '/run/nfs';
/** What the guest mounts. */
export const EXPORT = '/share';
const PORT = 2049;

/** The command that runs the server and ends with it. It must be root's. */
export function jailCommand(options: JailOptions): readonly [file: string, ...args: string[]] {
  const { jail, tree, source, readonly } = options;
  return [
    'unshare',
    ...['--mount', '--net', '--pid', '--ipc', '--uts', '--fork', '--kill-child=SIGKILL', '--propagation=slave'],
    ...['/bin/sh', '-euc', BUILD, 'infralet-share'],
    ...[jail, tree, source, readonly ? 'RO' : 'RW', ENTER, SERVE],
  ];
}

/** With the node's own tools: puts the root together and enters it. */
const BUILD = `
jail=$1 tree=$2 source=$3 access=$4 enter=$5 serve=$6
mount -t tmpfs -o mode=0755,size=4m,nosuid,noexec infralet-share "$jail"
cd "$jail"
mkdir -p usr source export proc dev etc tmp old run/ganesha var/lib/nfs/ganesha
ln -s usr/bin bin
ln -s usr/lib lib
ln -s usr/lib64 lib64
ln -s ../run var/run
ln -s /proc/self/mounts etc/mtab
mount --bind "$tree/usr" usr
mount -o remount,bind,ro,nosuid,nodev usr
# With what is mounted below it, now and later.
mount --rbind "$source" source
mknod -m 0666 dev/null c 1 3
mknod -m 0444 dev/urandom c 1 9
mknod -m 0600 dev/fuse c 10 229
echo 'root:x:0:0::/:/bin/false' >etc/passwd
echo 'root:x:0:' >etc/group
cat >etc/netconfig <<END
udp tpi_clts v inet udp - -
tcp tpi_cots_ord v inet tcp - -
udp6 tpi_clts v inet6 udp - -
tcp6 tpi_cots_ord v inet6 tcp - -
END
cat >etc/ganesha.conf <<END
NFS_CORE_PARAM {
  Protocols = 4;
  NFS_Port = ${PORT};
  Enable_NLM = false;
  Enable_RQUOTA = false;
  fsid_device = true;
  Allow_Set_Io_Flusher_Fail = true;
}
NFSv4 {
  Only_Numeric_Owners = true;
  UseGetpwnam = true;
  Graceless = true;
  Lease_Lifetime = 120;
}
NFS_KRB5 { Active_krb5 = false; }
EXPORT {
  Export_Id = 1;
  Path = /export;
  Pseudo = ${EXPORT};
  Protocols = 4;
  Transports = TCP;
  SecType = sys;
  Squash = No_Root_Squash;
  Access_Type = $access;
  Attr_Expiration_Time = 0;
  FSAL { Name = VFS; }
}
# The node writes past the server: what it has seen is asked for anew every time.
MDCACHE { Dir_Chunk = 0; }
END
pivot_root . old
exec /usr/bin/busybox sh -euc "$enter" infralet-share "$access" "$serve"
`;

/** Inside, as the first process of the namespace: nothing of the node is left but the directory. */
const ENTER = `
busybox=/usr/bin/busybox
$busybox umount -l /old
$busybox mount -t proc -o ro,nosuid,nodev,noexec proc /proc
$busybox ip link set lo up
options=allow_other,use_ino,noforget,inodecalc=passthrough,minfreespace=0,moveonenospc=false,statfs_ignore=none
options=$options,cache.files=off,cache.attr=0,cache.entry=0,cache.negative_entry=0,category.create=ff
# The kernel checks rights before mergerfs is asked, with all groups of the user. mergerfs, which is told of one group only,
# keeps root's rights while it acts as the user.
/usr/bin/setpriv --securebits=+no_setuid_fixup /usr/bin/mergerfs -o "fsname=share,default_permissions,$options" "/source=$1" /export
export busybox
exec $busybox unshare -m $busybox sh -euc "$2"
`;

/** The server sees what mergerfs shows, and has no more rights than it takes to act as the guest's users. */
const SERVE = `
$busybox umount -l /source
(
  until $busybox nc 127.0.0.1 ${PORT} </dev/null 2>/dev/null; do $busybox usleep 20000; done
  exec /usr/bin/socat1 UNIX-LISTEN:${SOCKET},fork,mode=0600 TCP4:127.0.0.1:${PORT},nodelay
) &
caps=-all,+chown,+dac_override,+dac_read_search,+fowner,+fsetid,+setuid,+setgid,+mknod
exec /usr/bin/setpriv --bounding-set=$caps --no-new-privs \\
  /usr/bin/ganesha.nfsd -F -f /etc/ganesha.conf -L STDERR -N NIV_WARN -p /run/ganesha.pid
`;
