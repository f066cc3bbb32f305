/** A VXLAN packet with a UDP datagram in it, byte by byte, for those who have no right to send one. */

export interface InnerDatagram {
  readonly vni: number;
  readonly from: { readonly mac: string; readonly address: string };
  readonly to: { readonly mac: string; readonly address: string; readonly port: number };
  readonly text: string;
}

/** The payload of the outer UDP packet. */
export function vxlanPacket({ vni, from, to, text }: InnerDatagram): Buffer {
  const data = Buffer.from(text);
  const header = Buffer.alloc(8);
  header.writeUInt8(0x08);
  header.writeUIntBE(vni, 4, 3);
  const ethernet = Buffer.concat([mac(to.mac), mac(from.mac), Buffer.from([0x08, 0x00])]);
  const ip = Buffer.alloc(20);
  ip.writeUInt8(0x45);
  ip.writeUInt16BE(28 + data.length, 2);
  ip.writeUInt8(64, 8);
  ip.writeUInt8(17, 9);
  address(from.address).copy(ip, 12);
  address(to.address).copy(ip, 16);
  ip.writeUInt16BE(checksum(ip), 10);
  // A UDP checksum of 0 means that there is none.
  const udp = Buffer.alloc(8);
  udp.writeUInt16BE(40_000);
  udp.writeUInt16BE(to.port, 2);
  udp.writeUInt16BE(8 + data.length, 4);
  return Buffer.concat([header, ethernet, ip, udp, data]);
}

function mac(text: string): Buffer {
  return Buffer.from(text.replaceAll(':', ''), 'hex');
}

function address(text: string): Buffer {
  return Buffer.from(text.split('.').map(Number));
}

function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += bytes.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
