/**
 * The two fields the agent itself reads from containerd's answers, decoded by hand: the whole CRI schema would double
 * the agent's start-up time for one shutdown.
 */
import { InfraletError } from '../base/errors.ts';

interface Field {
  readonly number: number;
  /** Length-delimited content, or the varint's value. */
  readonly value: Buffer | number;
}

/** Top-level fields of a protobuf message. */
function* fields(message: Buffer): Generator<Field> {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 64; shift += 7) {
      const byte = message[at];
      if (byte === undefined) throw broken();
      at += 1;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw broken();
  };
  const skip = (count: number): Buffer => {
    if (at + count > message.length) throw broken();
    at += count;
    return message.subarray(at - count, at);
  };
  while (at < message.length) {
    const tag = varint();
    const number = Math.floor(tag / 8);
    switch (tag % 8) {
      case 0:
        yield { number, value: varint() };
        break;
      case 1:
        skip(8);
        break;
      case 2:
        yield { number, value: skip(varint()) };
        break;
      case 5:
        skip(4);
        break;
      default:
        throw broken();
    }
  }
}

/** ids of a ListContainersResponse: repeated Container containers = 1; Container.id = 1, Container.state = 6. */
export function runningContainers(response: Buffer): readonly string[] {
  const RUNNING = 1;
  const ids: string[] = [];
  for (const { number, value } of fields(response)) {
    if (number !== 1 || typeof value === 'number') continue;
    let id = '';
    let state = 0;
    for (const field of fields(value)) {
      if (field.number === 1 && typeof field.value !== 'number') id = field.value.toString();
      if (field.number === 6 && typeof field.value === 'number') state = field.value;
    }
    if (id !== '' && state === RUNNING) ids.push(id);
  }
  return ids;
}

/** StopContainerRequest: container_id = 1, timeout = 2 (seconds). */
export function stopContainerRequest(id: string, seconds: number): Buffer {
  const name = Buffer.from(id);
  return Buffer.concat([Buffer.from([0x0a]), varint(name.length), name, Buffer.from([0x10]), varint(seconds)]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  bytes.push(rest);
  return Buffer.from(bytes);
}

function broken(): InfraletError {
  return new InfraletError('DATA_LOSS', 'containerd sent a message that is not protobuf');
}
