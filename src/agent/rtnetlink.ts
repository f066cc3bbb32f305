/** What a pod's interface is given, as messages to the kernel's rtnetlink(7), and what the kernel answers to them. */
import { isIPv6 } from 'node:net';

const TYPE = { newLink: 16, newAddress: 20, deleteAddress: 21, newRoute: 24, error: 2 } as const;
const FLAG = { request: 0x1, ack: 0x4, replace: 0x100, create: 0x400 } as const;
const UP = 1;
/** Tables, protocols and scopes of routes. */
const MAIN = 254;
const BOOT = 3;
const UNIVERSE = 0;
const ON_LINK = 253;
const UNICAST = 1;

/** Numbers of attributes, by the kind of message. */
const LINK = { address: 1, mtu: 4 } as const;
const ADDRESS = { address: 1, local: 2 } as const;
const ROUTE = { destination: 1, device: 4, gateway: 5 } as const;

const HEADER_BYTES = 16;
const INET = 2;
const INET6 = 10;

export interface PodLink {
  /** Of the interface, in its namespace. */
  readonly index: number;
  /** An address that it has and must lose, ADDRESS/BITS. */
  readonly placeholder: string;
  readonly mac: string;
  readonly mtu: number;
  readonly addresses: readonly { readonly address: string }[];
  /** In their order: a gateway may itself need the route before. */
  readonly routes: readonly { readonly destination: string; readonly gateway: string }[];
}

export interface Batch {
  readonly bytes: Buffer;
  readonly count: number;
}

/** For an interface that is down; up at the end. Everything was checked before. */
export function setUpLink({ index, placeholder, mac, mtu, addresses, routes }: PodLink): Batch {
  const acknowledged = FLAG.request | FLAG.ack;
  const put = acknowledged | FLAG.create | FLAG.replace;
  const hardware = Buffer.from(mac.replaceAll(':', ''), 'hex');
  const messages = [
    message(TYPE.deleteAddress, acknowledged, addressBody(index, placeholder)),
    message(TYPE.newLink, acknowledged, [
      linkHead(index, false),
      attribute(LINK.address, hardware),
      attribute(LINK.mtu, number(mtu)),
    ]),
    ...addresses.map(({ address }) => message(TYPE.newAddress, put, addressBody(index, address))),
    message(TYPE.newLink, acknowledged, [linkHead(index, true)]),
    ...routes.map((route) => message(TYPE.newRoute, put, routeBody(index, route))),
  ];
  for (const [sequence, each] of messages.entries()) each.writeUInt32LE(sequence + 1, 8);
  return { bytes: Buffer.concat(messages), count: messages.length };
}

/** The numbers by which the kernel has answered, 0 for what it has done and -errno else, in the messages' order. */
export function outcomes(answers: Buffer): readonly number[] {
  const found: number[] = [];
  for (let at = 0; at + HEADER_BYTES + 4 <= answers.length; ) {
    const length = answers.readUInt32LE(at);
    if (answers.readUInt16LE(at + 4) === TYPE.error) found.push(answers.readInt32LE(at + HEADER_BYTES));
    at += Math.max(aligned(length), HEADER_BYTES);
  }
  return found;
}

function linkHead(index: number, up: boolean): Buffer {
  const head = Buffer.alloc(16);
  head.writeInt32LE(index, 4);
  head.writeUInt32LE(up ? UP : 0, 8);
  head.writeUInt32LE(UP, 12);
  return head;
}

function addressBody(index: number, prefix: string): readonly Buffer[] {
  const { bytes, bits, family } = parsePrefix(prefix);
  const head = Buffer.from([family, bits, 0, UNIVERSE, 0, 0, 0, 0]);
  head.writeUInt32LE(index, 4);
  return [head, attribute(ADDRESS.local, bytes), attribute(ADDRESS.address, bytes)];
}

function routeBody(
  index: number,
  { destination, gateway }: { readonly destination: string; readonly gateway: string },
): readonly Buffer[] {
  const { bytes, bits, family } = parsePrefix(destination);
  const scope = gateway === '' && family === INET ? ON_LINK : UNIVERSE;
  return [
    Buffer.from([family, bits, 0, 0, MAIN, BOOT, scope, UNICAST, 0, 0, 0, 0]),
    attribute(ROUTE.destination, bytes),
    attribute(ROUTE.device, number(index)),
    ...(gateway === '' ? [] : [attribute(ROUTE.gateway, addressBytes(gateway))]),
  ];
}

function message(type: number, flags: number, parts: readonly Buffer[]): Buffer {
  const head = Buffer.alloc(HEADER_BYTES);
  const bytes = Buffer.concat([head, ...parts]);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes.writeUInt16LE(type, 4);
  bytes.writeUInt16LE(flags, 6);
  return bytes;
}

function attribute(type: number, value: Buffer): Buffer {
  const bytes = Buffer.alloc(aligned(4 + value.length));
  bytes.writeUInt16LE(4 + value.length, 0);
  bytes.writeUInt16LE(type, 2);
  value.copy(bytes, 4);
  return bytes;
}

function aligned(length: number): number {
  return (length + 3) & ~3;
}

function number(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function parsePrefix(prefix: string): { readonly bytes: Buffer; readonly bits: number; readonly family: number } {
  const [address = '', bits] = prefix.split('/');
  return { bytes: addressBytes(address), bits: Number(bits), family: isIPv6(address) ? INET6 : INET };
}

/** Of a valid address, in the network's order. */
export function addressBytes(address: string): Buffer {
  if (!isIPv6(address)) return Buffer.from(address.split('.').map(Number));
  // The last two groups may be written as an IPv4 address.
  const mapped = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(address);
  const tail = mapped ? addressBytes(mapped[2] ?? '').toString('hex') : '';
  const text = mapped ? `${mapped[1]}${tail.slice(0, 4)}:${tail.slice(4)}` : address;
  const [before = '', after] = text.split('::');
  const groups = (part: string): string[] => part.split(':').filter((group) => group !== '');
  const left = groups(before);
  const right = groups(after ?? '');
  const middle = Array.from({ length: 8 - left.length - right.length }, () => '0');
  return Buffer.from([...left, ...middle, ...right].map((group) => group.padStart(4, '0')).join(''), 'hex');
}
