/**
 * What the guest's containerd (1.7) does not know yet of the CRI, put into the OCI runtime specification that it has made
 * of a container and not started yet: crun knows all of it. Pure.
 */
import { normalize } from 'node:path';
import { z } from 'zod';
import { errorMessage, InfraletError } from '../base/errors.ts';
import type { ContainerConfig__Output } from '../gen/runtime/v1/ContainerConfig.ts';
import type { IDMapping__Output } from '../gen/runtime/v1/IDMapping.ts';
import type { Mount__Output } from '../gen/runtime/v1/Mount.ts';
import type { ContainerUserRecord } from './record.ts';

/** As large as a specification with thousands of mounts and variables; it comes from the guest. */
const MAX_SPEC = 4 * 1024 * 1024;
/** More groups than any process can have. */
const MAX_GROUPS = 65_536;

const id = z.int().min(0).max(0xffff_ffff);
const names = z.array(z.string()).optional();

const specSchema = z.looseObject({
  process: z.looseObject({
    user: z.looseObject({ uid: id, gid: id, additionalGids: z.array(id).max(MAX_GROUPS).optional() }),
    capabilities: z
      .looseObject({ bounding: names, effective: names, inheritable: names, permitted: names, ambient: names })
      .optional(),
  }),
  mounts: z.array(z.looseObject({ destination: z.string(), options: z.array(z.string()).optional() })).optional(),
});

export type RuntimeSpec = z.output<typeof specSchema>;

/** Reads a specification of the guest. */
export function parseSpec(text: string): RuntimeSpec {
  if (text.length > MAX_SPEC) throw unreadable(`it has ${text.length} characters`);
  try {
    return specSchema.parse(JSON.parse(text));
  } catch (error) {
    throw unreadable(errorMessage(error));
  }
}

function unreadable(why: string): InfraletError {
  return new InfraletError('DATA_LOSS', `the guest's runtime specification cannot be used: ${why}`);
}

/** Who the container's first process is. */
export function specUser({ process: { user } }: RuntimeSpec): ContainerUserRecord {
  return {
    uid: String(user.uid),
    gid: String(user.gid),
    supplementalGroups: (user.additionalGids ?? []).map(String),
  };
}

/** The specification as it has to be for `config`; the very same object when containerd's is complete. */
export function completeSpec(spec: RuntimeSpec, config: ContainerConfig__Output): RuntimeSpec {
  return withMounts(withAmbient(withStrictGroups(spec, config), config), config);
}

/** Whether a specification of containerd's can be short of what `config` asks for. */
export function needsCompletion(config: ContainerConfig__Output): boolean {
  const security = config.linux?.securityContext;
  const ambient = security?.capabilities?.addAmbientCapabilities ?? [];
  return security?.supplementalGroupsPolicy === 'Strict' || ambient.length > 0 || config.mounts.some(needsMore);
}

/** Strict: the groups that the image's /etc/group gives the user do not count. */
function withStrictGroups(spec: RuntimeSpec, config: ContainerConfig__Output): RuntimeSpec {
  const security = config.linux?.securityContext;
  if (security?.supplementalGroupsPolicy !== 'Strict') return spec;
  const { user } = spec.process;
  const groups = [user.gid, ...security.supplementalGroups.map(Number)];
  const additionalGids = [...new Set(groups)].sort((a, b) => a - b);
  return { ...spec, process: { ...spec.process, user: { ...user, additionalGids } } };
}

/** The kernel takes an ambient capability only if it is permitted and inheritable, too. */
function withAmbient(spec: RuntimeSpec, config: ContainerConfig__Output): RuntimeSpec {
  const security = config.linux?.securityContext;
  const asked = security?.capabilities?.addAmbientCapabilities ?? [];
  if (asked.length === 0) return spec;
  const { capabilities = {} } = spec.process;
  const added = asked.flatMap((name) =>
    name.toUpperCase() === 'ALL' ? (capabilities.bounding ?? []) : [capabilityName(name)],
  );
  const join = (set: readonly string[] | undefined): string[] => [...new Set([...(set ?? []), ...added])];
  return {
    ...spec,
    process: {
      ...spec.process,
      capabilities: {
        ...capabilities,
        bounding: join(capabilities.bounding),
        effective: join(capabilities.effective),
        permitted: join(capabilities.permitted),
        inheritable: join(capabilities.inheritable),
        ambient: join(capabilities.ambient),
      },
    },
  };
}

function capabilityName(name: string): string {
  const upper = name.toUpperCase();
  return upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
}

/** Mounts that are read-only all the way down, whose owners are mapped, or that have options of their own. */
function withMounts(spec: RuntimeSpec, config: ContainerConfig__Output): RuntimeSpec {
  const special = new Map(
    config.mounts.filter(needsMore).map((mount) => [normalize(`${mount.containerPath}/`), mount] as const),
  );
  if (special.size === 0) return spec;
  const mounts = (spec.mounts ?? []).map((mount) => {
    const asked = special.get(normalize(`${mount.destination}/`));
    return asked ? { ...mount, ...mountFields(mount.options ?? [], asked) } : mount;
  });
  return { ...spec, mounts };
}

function needsMore(mount: Mount__Output): boolean {
  const { recursiveReadOnly, uidMappings, gidMappings, mountOptions } = mount;
  return recursiveReadOnly || uidMappings.length > 0 || gidMappings.length > 0 || mountOptions.length > 0;
}

function mountFields(options: readonly string[], mount: Mount__Output): Record<string, unknown> {
  const readOnly = mount.recursiveReadOnly ? options.map((option) => (option === 'ro' ? 'rro' : option)) : options;
  return {
    options: [...readOnly, ...mount.mountOptions],
    ...(mount.uidMappings.length > 0 ? { uidMappings: mount.uidMappings.map(ociMapping) } : {}),
    ...(mount.gidMappings.length > 0 ? { gidMappings: mount.gidMappings.map(ociMapping) } : {}),
  };
}

function ociMapping({ containerId, hostId, length }: IDMapping__Output) {
  return { containerID: containerId, hostID: hostId, size: length };
}
