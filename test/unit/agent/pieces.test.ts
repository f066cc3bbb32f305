/** Small pieces of the agent: DER, protobuf by hand, options, user data, log. */
import { createPublicKey, X509Certificate } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { certificateRequest, newKey, selfSigned, spki, toPem } from '../../../src/agent/certificate.ts';
import { integer, oid, sequence } from '../../../src/agent/der.ts';
import { toStatus } from '../../../src/agent/errors.ts';
import { createAgentLog, RefusalLog } from '../../../src/agent/log.ts';
import { parseOptions } from '../../../src/agent/options.ts';
import { parseUserData } from '../../../src/agent/user-data.ts';
import {
  createContainerRequest,
  firstText,
  idRequest,
  imageRequest,
  podSandboxConfig,
  runningContainers,
  stopContainerRequest,
} from '../../../src/agent/wire.ts';
import { InfraletError } from '../../../src/base/errors.ts';
import { encodeUserData, newToken } from '../../../src/guest/user-data.ts';
import { checkCsr } from '../../../src/pki/csr.ts';
import { loadCri } from '../../../src/rpc/load.ts';

test('DER: lengths, integers and object identifiers', () => {
  expect(sequence(Buffer.alloc(200)).subarray(0, 3).toString('hex')).toBe('3081c8');
  expect(sequence(Buffer.alloc(70_000)).subarray(0, 5).toString('hex')).toBe('3083011170');
  expect(integer(Buffer.from([0, 0, 0x80])).toString('hex')).toBe('02020080');
  expect(integer(Buffer.from([0])).toString('hex')).toBe('020100');
  expect(oid('1.2.840.10045.4.3.2').toString('hex')).toBe('06082a8648ce3d040302');
});

test('the self-signed certificate and the request are what libraries read', async () => {
  const key = newKey();
  const certificate = new X509Certificate(toPem(selfSigned(key, Date.now())));
  expect(certificate.verify(createPublicKey(key))).toBe(true);
  expect(certificate.publicKey.export({ type: 'spki', format: 'der' }).equals(spki(key))).toBe(true);
  expect((await checkCsr(certificateRequest(key))).spki.equals(spki(key))).toBe(true);
});

test('a request with any bit changed is refused, or says the same under a wrapper that the parser forgives', async () => {
  const key = newKey();
  const csr = certificateRequest(key);
  // Header of three bytes, then the signed part with its own header of two.
  const signedEnd = 3 + 2 + csr.readUInt8(4);
  for (let bit = 0; bit < csr.length * 8; bit += 1) {
    const broken = Buffer.from(csr);
    broken.writeUInt8(broken.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
    const result = await checkCsr(broken).catch((error: unknown) => error);
    if (result instanceof Error) expect(result).toMatchObject({ code: 'PERMISSION_DENIED' });
    else {
      expect(result).toMatchObject({ spki: spki(key) });
      expect(bit < 3 * 8 || bit >= signedEnd * 8).toBe(true);
    }
  }
});

test('running containers are found in what the schema encodes, and stop requests are what it decodes', () => {
  const { ListContainers, StopContainer } = loadCri().RuntimeService.service;
  const id = fc.stringMatching(/^[0-9a-f]{1,64}$/);
  const state = fc.constantFrom('CONTAINER_CREATED', 'CONTAINER_RUNNING', 'CONTAINER_EXITED', 'CONTAINER_UNKNOWN');
  fc.assert(
    fc.property(
      fc.array(fc.record({ id, state, annotations: fc.dictionary(fc.string(), fc.string()) })),
      (containers) => {
        const running = containers.filter((one) => one.state === 'CONTAINER_RUNNING').map((one) => one.id);
        expect(runningContainers(ListContainers.responseSerialize({ containers }))).toEqual(running);
      },
    ),
  );
  fc.assert(
    fc.property(id, fc.nat({ max: 100_000 }), (containerId, seconds) => {
      expect(StopContainer.requestDeserialize(stopContainerRequest(containerId, seconds))).toMatchObject({
        containerId,
        timeout: String(seconds),
      });
    }),
  );
});

test('bytes that are no protobuf are refused or harmless, never a hang', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      try {
        runningContainers(Buffer.from(bytes));
      } catch (error) {
        expect(error).toBeInstanceOf(InfraletError);
      }
    }),
  );
});

test('an agent below another root has all paths there and harmless commands', () => {
  const options = parseOptions(['--root', '/x', '--listen', '[::1]:0']);
  expect(options.listen).toEqual({ host: '::1', port: 0 });
  for (const path of [...Object.values(options.roots), options.stateDir, options.hostnameFile, options.entropyFile]) {
    expect(path).toMatch(/^\/x\//);
  }
  expect([options.powerOffCommand, options.dateCommand]).toEqual(['true', 'true']);
  expect(parseOptions([])).toMatchObject({
    listen: { port: 7443 },
    powerOffCommand: 'poweroff',
    containerdSocket: '/run/containerd/containerd.sock',
    roots: { ROOT_VOLUMES: '/scratch/volumes' },
  });
  expect(() => parseOptions(['--listen', 'nowhere'])).toThrow('HOST:PORT');
  expect(() => parseOptions(['--listen', '1.2.3.4:70000'])).toThrow('HOST:PORT');
});

test('user data: at most 4 KiB, and wrong ones are refused without quoting them', () => {
  const data = {
    cluster: 'c',
    sandboxId: 's',
    token: newToken(),
    ca: 'not a certificate',
    clockMs: 1,
    entropy: 'e',
    maxMessage: 1,
  };
  expect(Buffer.from(data.token, 'base64url')).toHaveLength(32);
  const text = encodeUserData(data);
  expect(() => parseUserData(text)).toThrow('ca is not a certificate');
  expect(() => encodeUserData({ ...data, ca: 'x'.repeat(5000) })).toThrow('4096');
  fc.assert(
    fc.property(fc.oneof(fc.json(), fc.string()), (anything) => {
      expect(() => parseUserData(anything)).toThrow(InfraletError);
    }),
  );
});

test('statuses: ours, containerd’s, errno’s; a child’s exit code is none of them', () => {
  expect(toStatus(new InfraletError('NOT_FOUND', 'gone'))).toEqual({ code: 5, details: 'gone' });
  expect(toStatus(Object.assign(new Error('x'), { code: 9, details: 'containerd says' }))).toEqual({
    code: 9,
    details: 'containerd says',
  });
  expect(toStatus(Object.assign(new Error('x'), { code: 'ENOSPC' }))).toMatchObject({ code: 8 });
  expect(toStatus(Object.assign(new Error('command failed'), { code: 5 }))).toMatchObject({ code: 13 });
  expect(toStatus('what')).toMatchObject({ code: 13 });
});

test('the log is bounded per line and refusals per second', () => {
  const lines: string[] = [];
  const log = createAgentLog({}, (line) => lines.push(line));
  log.info('x'.repeat(10_000));
  expect(lines[0]?.length).toBeLessThan(2100);
  const refusals = new RefusalLog(log);
  for (let index = 0; index < 1000; index += 1) refusals.refuse('stranger', { index });
  expect(lines.length).toBeLessThan(1 + 2 * 11);
});

test('the requests of the rehearsed container are what containerd reads', () => {
  const cri = loadCri().RuntimeService.service;
  const sandbox = podSandboxConfig({
    ...{ name: 'pod', namespace: 'space', hostname: 'host', logDirectory: '/logs', cgroupParent: '/pod' },
  });
  const request = createContainerRequest({
    ...{ sandboxId: 'a1', sandbox, name: 'one', image: 'sha256:ab', command: ['/bin/x', 'y'], logPath: 'one.log' },
  });
  expect(cri.CreateContainer.requestDeserialize(request)).toMatchObject({
    podSandboxId: 'a1',
    config: {
      metadata: { name: 'one' },
      image: { image: 'sha256:ab' },
      command: ['/bin/x', 'y'],
      logPath: 'one.log',
      linux: { resources: { cpuShares: '2' }, securityContext: {} },
    },
    sandboxConfig: { metadata: { name: 'pod', namespace: 'space' }, linux: { cgroupParent: '/pod' } },
  });
  expect(cri.ExecSync.requestDeserialize(idRequest('c1', 'a', 'b'))).toMatchObject({
    containerId: 'c1',
    cmd: ['a', 'b'],
  });
  expect(cri.RemoveContainer.requestDeserialize(idRequest('c1'))).toMatchObject({ containerId: 'c1' });
  const images = loadCri().ImageService.service;
  expect(images.PullImage.requestDeserialize(imageRequest('r@d'))).toMatchObject({ image: { image: 'r@d' } });
  expect(firstText(cri.CreateContainer.responseSerialize({ containerId: 'c1' }))).toBe('c1');
});
