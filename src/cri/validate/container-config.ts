/** ContainerConfig: everything that would otherwise fail late, in the machine, with a worse message. */
import type { ContainerConfig__Output } from '../../gen/runtime/v1/ContainerConfig.ts';
import type { LinuxContainerSecurityContext__Output } from '../../gen/runtime/v1/LinuxContainerSecurityContext.ts';
import type { Mount__Output } from '../../gen/runtime/v1/Mount.ts';
import { FEATURES } from '../features.ts';
import {
  absent,
  absolutePath,
  invalid,
  knownEnum,
  name,
  noNul,
  nonEmpty,
  noParent,
  oneOf,
  quote,
  required,
} from './fields.ts';
import { checkImageSpec } from './image.ts';
import {
  CONTAINER_PID_MODES,
  checkNamespaces,
  checkPairs,
  checkProfiles,
  checkRange,
  checkResources,
  checkUsers,
} from './linux.ts';

/** Options that restrict a mount and mean the same in a machine as on the node. */
const MOUNT_OPTIONS = [
  'noexec',
  'exec',
  'nosuid',
  'suid',
  'nodev',
  'dev',
  'noatime',
  'relatime',
  'nosymfollow',
  'nodiratime',
  'strictatime',
];

/** The CNCF's Container Device Interface: vendor/class=device. */
const CDI_NAME = /^[A-Za-z][A-Za-z0-9_.-]*\/[A-Za-z][A-Za-z0-9_-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*$/;

export function checkContainerConfig(path: string, given: ContainerConfig__Output | null): ContainerConfig__Output {
  const config = required(path, given);
  const metadata = required(`${path}.metadata`, config.metadata);
  name(`${path}.metadata.name`, metadata.name);
  checkImageSpec(`${path}.image`, config.image);
  checkArguments(`${path}.command`, config.command);
  checkArguments(`${path}.args`, config.args);
  if (config.workingDir !== '') absolutePath(`${path}.working_dir`, config.workingDir);
  checkEnvironment(`${path}.envs`, config);
  for (const [index, mount] of config.mounts.entries()) checkMount(`${path}.mounts[${index}]`, mount);
  checkDevices(path, config);
  checkPairs(`${path}.labels`, config.labels);
  checkPairs(`${path}.annotations`, config.annotations);
  checkLogPath(`${path}.log_path`, config.logPath);
  knownEnum(`${path}.stop_signal`, config.stopSignal);
  if (config.stopSignal !== 'SIGNAL_RUNTIME_DEFAULT' && !FEATURES.stopSignals) {
    invalid(`${path}.stop_signal`, 'is not supported; set STOPSIGNAL in the image');
  }
  checkResources(`${path}.linux.resources`, config.linux?.resources ?? null);
  checkSecurity(`${path}.linux.security_context`, config.linux?.securityContext ?? null);
  absent(`${path}.windows`, config.windows, 'containers run Linux here');
  return config;
}

export function checkArguments(path: string, list: readonly string[]): void {
  for (const [index, value] of list.entries()) noNul(`${path}[${index}]`, value);
}

/** Relative to the sandbox's log directory, and staying below it. */
function checkLogPath(path: string, logPath: string): void {
  if (logPath === '') return;
  noNul(path, logPath);
  if (logPath.startsWith('/')) invalid(path, `must be relative to the pod's log_directory, is ${quote(logPath)}`);
  if (logPath.endsWith('/') || logPath === '.') invalid(path, `must name a file, is ${quote(logPath)}`);
  noParent(path, logPath);
}

function checkEnvironment(path: string, { envs }: ContainerConfig__Output): void {
  for (const [index, { key, value }] of envs.entries()) {
    nonEmpty(`${path}[${index}].key`, key);
    if (key.includes('=')) invalid(`${path}[${index}].key`, `must not contain "=", is ${quote(key)}`);
    noNul(`${path}[${index}].key`, key);
    if (value.includes(0)) invalid(`${path}[${index}].value`, 'must not contain a NUL byte');
  }
}

function checkMount(path: string, mount: Mount__Output): void {
  absolutePath(`${path}.container_path`, mount.containerPath);
  oneOf(`${path}.propagation`, mount.propagation, [
    'PROPAGATION_PRIVATE',
    'PROPAGATION_HOST_TO_CONTAINER',
    'PROPAGATION_BIDIRECTIONAL',
  ]);
  if (mount.image?.image) {
    if (!FEATURES.imageVolumes) invalid(`${path}.image`, 'image volumes are not supported');
  } else {
    absolutePath(`${path}.host_path`, mount.hostPath);
    noParent(`${path}.host_path`, mount.hostPath);
  }
  if (mount.recursiveReadOnly) {
    if (!FEATURES.recursiveReadOnlyMounts) invalid(`${path}.recursive_read_only`, 'is not supported');
    if (!mount.readonly) invalid(`${path}.recursive_read_only`, 'needs readonly');
    if (mount.propagation !== 'PROPAGATION_PRIVATE')
      invalid(`${path}.recursive_read_only`, 'needs private propagation');
  }
  for (const [index, option] of mount.mountOptions.entries()) {
    oneOf(`${path}.mount_options[${index}]`, option, MOUNT_OPTIONS);
  }
  if (mount.mountOptions.length > 0 && !FEATURES.mountOptions) invalid(`${path}.mount_options`, 'are not supported');
  for (const field of ['uidMappings', 'gidMappings'] as const) {
    if (mount[field].length > 0 && !FEATURES.userNamespaces) invalid(`${path}.${field}`, 'are not supported');
    for (const [index, mapping] of mount[field].entries()) checkRange(`${path}.${field}[${index}]`, mapping);
  }
  if (mount.uidMappings.length > 0 !== mount.gidMappings.length > 0) {
    invalid(`${path}.uidMappings`, 'and gidMappings must be set together');
  }
}

function checkDevices(path: string, { devices, CDIDevices }: ContainerConfig__Output): void {
  for (const [index, device] of devices.entries()) {
    const at = `${path}.devices[${index}]`;
    absolutePath(`${at}.container_path`, device.containerPath);
    absolutePath(`${at}.host_path`, device.hostPath);
    if (!/^[rwm]*$/.test(device.permissions)) {
      invalid(`${at}.permissions`, `must consist of r, w and m, is ${quote(device.permissions)}`);
    }
  }
  for (const [index, device] of CDIDevices.entries()) nonEmpty(`${path}.CDI_devices[${index}].name`, device.name);
  for (const [index, { name: device }] of CDIDevices.entries()) {
    if (!CDI_NAME.test(device)) {
      invalid(`${path}.CDI_devices[${index}].name`, `must be of the form vendor.com/class=name, is ${quote(device)}`);
    }
  }
  if (CDIDevices.length > 0 && !FEATURES.cdiDevices) {
    invalid(`${path}.CDI_devices`, "are not supported: this node's devices are not in the pod's machine");
  }
}

function checkSecurity(path: string, context: LinuxContainerSecurityContext__Output | null): void {
  if (!context) return;
  checkNamespaces(`${path}.namespace_options`, context.namespaceOptions, CONTAINER_PID_MODES);
  checkUsers(path, context);
  checkProfiles(path, context);
  for (const [field, list] of [
    ['add_capabilities', context.capabilities?.addCapabilities],
    ['drop_capabilities', context.capabilities?.dropCapabilities],
    ['add_ambient_capabilities', context.capabilities?.addAmbientCapabilities],
  ] as const) {
    for (const [index, capability] of (list ?? []).entries()) {
      if (!/^[A-Za-z_]+$/.test(capability)) {
        invalid(`${path}.capabilities.${field}[${index}]`, `is no capability: ${quote(capability)}`);
      }
    }
  }
  for (const [index, masked] of context.maskedPaths.entries()) absolutePath(`${path}.masked_paths[${index}]`, masked);
  for (const [index, fixed] of context.readonlyPaths.entries()) absolutePath(`${path}.readonly_paths[${index}]`, fixed);
}
