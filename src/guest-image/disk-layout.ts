/** Where what lies on the disk for clouds. Sizes in bytes; pure. */

export const SECTOR = 512;
const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** Below `disk` in the image's directory: what boot loaders start. */
export const BOOT_FILES = { kernel: 'vmlinuz', initramfs: 'initramfs.cpio' } as const;

/** Room for the kernel, the initramfs and those of a later package; FAT32 needs 33 MiB at least. */
const ESP_BYTES = 64 * MIB;

export interface Partition {
  readonly name: string;
  /** GPT's type. */
  readonly type: string;
  readonly uuid: string;
  readonly start: number;
  readonly size: number;
}

export interface DiskLayout {
  readonly size: number;
  readonly uuid: string;
  readonly partitions: Readonly<Record<'bios' | 'esp' | 'root' | 'scratch', Partition>>;
}

/**
 * The scratch area comes last, so that it can grow into what a machine's disk is larger than its image; the image is a whole
 * number of GiB, as both clouds want it.
 *
 * @param uuid one for each name, the same for the same image.
 */
export function layOut(
  sizes: { readonly root: number; readonly scratch: number },
  uuid: (name: string) => string,
): DiskLayout {
  let at = MIB;
  const next = (name: string, type: string, bytes: number): Partition => {
    const partition = { name: `infralet-${name}`, type, uuid: uuid(name), start: at, size: up(bytes, MIB) };
    at += partition.size;
    return partition;
  };
  const bios = next('bios', '21686148-6449-6E6F-744E-656564454649', MIB);
  const esp = next('esp', 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B', ESP_BYTES);
  const root = next('root', '4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709', sizes.root);
  const scratch = next('scratch', '0FC63DAF-8483-4772-8E79-3D69D8477DE4', sizes.scratch);
  // The second table stands in the last MiB.
  const size = up(at + MIB, GIB);
  return {
    size,
    uuid: uuid('disk'),
    partitions: { bios, esp, root, scratch: { ...scratch, size: size - MIB - scratch.start } },
  };
}

/** What sfdisk reads. */
export function sfdiskScript({ uuid, partitions }: DiskLayout): string {
  const rows = Object.values(partitions).map(
    ({ name, type, uuid: id, start, size }) =>
      `start=${start / SECTOR}, size=${size / SECTOR}, type=${type}, uuid=${id}, name=${name}`,
  );
  return `label: gpt\nlabel-id: ${uuid}\nunit: sectors\n${rows.join('\n')}\n`;
}

function up(bytes: number, unit: number): number {
  return Math.ceil(bytes / unit) * unit;
}
