/**
 * Joins a machine that is elsewhere to the namespace that CNI made: a VXLAN device takes the place of the local machine's
 * tap. It is made inside the namespace, so it goes with it, while its packets travel through the node's own network.
 *
 * A VXLAN device takes packets with its number from anybody. Who may send for a pod is checked in two steps, both part of
 * the devices themselves, so that no reload of the node's packet filter can undo them: the kernel drops frames whose
 * hardware address is known to live behind another machine ("learning" makes it compare; there is no room to learn
 * anything), and only frames with the pod's own hardware address pass on to the pod's network.
 */
import { isIPv6 } from 'node:net';
import { z } from 'zod';
import { InfraletError } from '../base/errors.ts';
import { run, tryRun } from '../base/process.ts';
import { findLink, ip } from './netns.ts';
import type { VxlanLink } from './pod-network.ts';
import { redirect } from './redirect.ts';

const DEVICE = 'machine';
/** A bridge without ports: what is sent into it is dropped. Some kernels have no other way to drop a packet here. */
const SINK = 'strays';
/** Where clouds tell a machine its role's credentials: what the node would be told is not for pods. */
const METADATA = '169.254.169.254/32';
const TIMEOUT_MS = 10_000;
/** Outer Ethernet, UDP and VXLAN headers, and IP. */
const OVERHEAD = { 4: 50, 6: 70 } as const;
/** The smallest MTU of IPv4; with less nothing works. */
const MIN_MTU = 576;

const routeSchema = z
  .array(z.object({ dev: z.string(), prefsrc: z.string().optional(), metrics: z.array(z.looseObject({})).optional() }))
  .min(1);
const deviceSchema = z
  .array(
    z.object({
      linkinfo: z.object({
        info_data: z.looseObject({
          id: z.number(),
          port: z.number(),
          local: z.string().optional(),
          local6: z.string().optional(),
          remote: z.string().optional(),
          remote6: z.string().optional(),
        }),
      }),
    }),
  )
  .min(1);

/** How this node reaches a machine: its own address towards it, and the largest packet of the pod that fits. */
export async function pathTo(
  remote: string,
  from: string | undefined,
  signal: AbortSignal,
): Promise<{ readonly local: string; readonly mtu: number }> {
  const asked = ['-j', 'route', 'get', remote, ...(from === undefined ? [] : ['from', from])];
  const result = await tryRun('ip', asked, { signal, timeoutMs: TIMEOUT_MS });
  const route = result.exitCode === 0 ? routeSchema.safeParse(JSON.parse(result.stdout)).data?.[0] : undefined;
  const local = from ?? route?.prefsrc;
  if (!route || local === undefined) {
    throw new InfraletError(
      'FAILED_PRECONDITION',
      `this node has no way to the machine at ${remote}: ${result.stderr.trim() || 'the route has no source address'}`,
      { hint: 'node and machines must be in one network; with several addresses, set network.vxlan.address' },
    );
  }
  const uplink = await findLink(undefined, route.dev, signal);
  const ofRoute = route.metrics?.flatMap(({ mtu }) => (typeof mtu === 'number' ? [mtu] : [])) ?? [];
  const carried = Math.min(uplink?.mtu ?? 1500, ...ofRoute);
  const mtu = carried - OVERHEAD[isIPv6(remote) ? 6 : 4];
  if (mtu >= MIN_MTU) return { local, mtu };
  throw new InfraletError(
    'FAILED_PRECONDITION',
    `the way to ${remote} carries ${carried} bytes: too little for a pod`,
    {
      hint: `raise the MTU of ${route.dev} or of its route`,
    },
  );
}

/** Idempotent. False: something else on this node has taken the number; nothing was made then. */
export async function joinVxlan(
  target: { readonly netns: string; readonly ifName: string; readonly mac: string; readonly link: VxlanLink },
  signal: AbortSignal,
): Promise<boolean> {
  const { netns, ifName, mac, link } = target;
  const inside = ['-n', netns];
  if (!(await present(netns, link, signal))) {
    const kind = `type vxlan id ${link.vni} local ${link.local} remote ${link.remote} dstport ${link.port}`;
    // The network that it is made in is the one that its packets travel through; "maxaddress": remote and pod.
    const words = `link add ${DEVICE} netns ${netns} mtu ${link.mtu} ${kind} ttl 64 learning maxaddress 2`;
    const made = await tryRun('ip', words.split(' '), { signal, timeoutMs: TIMEOUT_MS });
    if (made.exitCode !== 0) {
      if (/exists/i.test(made.stderr)) return false;
      throw new InfraletError(
        'INTERNAL',
        `cannot make the VXLAN device to the machine at ${link.remote}: ${made.stderr.trim()}`,
        {
          hint: "the node's kernel needs the module vxlan",
        },
      );
    }
  }
  const known = ['fdb', 'replace', mac, 'dev', DEVICE, 'dst', link.remote, 'self', 'permanent'];
  await run('bridge', [...inside, ...known], { signal, timeoutMs: TIMEOUT_MS });
  if (!(await findLink(netns, SINK, signal))) await ip([...inside, 'link', 'add', SINK, 'type', 'bridge'], signal);
  await ip([...inside, 'link', 'set', 'dev', SINK, 'addrgenmode', 'none', 'up'], signal);
  const ways = [
    { from: ifName, to: DEVICE },
    { from: DEVICE, to: SINK, only: { destination: METADATA } },
    { from: DEVICE, to: ifName, only: { sourceMac: mac } },
    { from: DEVICE, to: SINK },
  ];
  await redirect(netns, ways, signal);
  // Only now: not one frame comes in before all rules are there.
  const up = ['link', 'set', 'dev', DEVICE, 'mtu', String(link.mtu), 'addrgenmode', 'none', 'up'];
  await ip([...inside, ...up], signal);
  return true;
}

/** Whether the device is there as it should be; one that leads elsewhere (a machine may come back with another address) goes. */
async function present(netns: string, link: VxlanLink, signal: AbortSignal): Promise<boolean> {
  if (!(await findLink(netns, DEVICE, signal))) return false;
  const shown = deviceSchema.parse(JSON.parse(await ip(['-n', netns, '-d', '-j', 'link', 'show', DEVICE], signal)));
  const data = shown[0]?.linkinfo.info_data;
  const same =
    data?.id === link.vni &&
    data.port === link.port &&
    (data.local ?? data.local6) === link.local &&
    (data.remote ?? data.remote6) === link.remote;
  if (!same) await ip(['-n', netns, 'link', 'del', DEVICE], signal);
  return same;
}
