/** PodSandboxConfig: everything that would otherwise fail late, in the machine, with a worse message. */
import { isIP } from 'node:net';
import type { LinuxPodSandboxConfig__Output } from '../../gen/runtime/v1/LinuxPodSandboxConfig.ts';
import type { PodSandboxConfig__Output } from '../../gen/runtime/v1/PodSandboxConfig.ts';
import { absent, absolutePath, invalid, name, noParent, oneOf, range, required, text, word } from './fields.ts';
import { checkNamespaces, checkPairs, checkProfiles, checkResources, checkUsers, POD_PID_MODES } from './linux.ts';

/** HOST_NAME_MAX of Linux. */
const MAX_HOSTNAME = 64;

export function checkSandboxConfig(path: string, given: PodSandboxConfig__Output | null): PodSandboxConfig__Output {
  const config = required(path, given);
  const metadata = required(`${path}.metadata`, config.metadata);
  name(`${path}.metadata.name`, metadata.name);
  name(`${path}.metadata.uid`, metadata.uid);
  name(`${path}.metadata.namespace`, metadata.namespace);
  checkHostname(`${path}.hostname`, config.hostname);
  if (config.logDirectory !== '') {
    absolutePath(`${path}.log_directory`, config.logDirectory);
    noParent(`${path}.log_directory`, config.logDirectory);
  }
  checkDns(`${path}.dns_config`, config);
  checkPorts(`${path}.port_mappings`, config);
  checkPairs(`${path}.labels`, config.labels);
  checkPairs(`${path}.annotations`, config.annotations);
  if (config.linux) checkLinux(`${path}.linux`, config.linux);
  absent(`${path}.windows`, config.windows, 'pods run Linux here');
  return config;
}

function checkHostname(path: string, hostname: string): void {
  if (hostname === '') return;
  text(path, hostname, MAX_HOSTNAME);
  if (!/^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(hostname)) {
    invalid(path, `must consist of letters, digits, "-" and ".", is ${JSON.stringify(hostname)}`);
  }
}

function checkDns(path: string, { dnsConfig }: PodSandboxConfig__Output): void {
  if (!dnsConfig) return;
  for (const [index, server] of dnsConfig.servers.entries()) {
    if (isIP(server) === 0) {
      invalid(`${path}.servers[${index}]`, `must be an IP address, is ${JSON.stringify(server)}`);
    }
  }
  for (const [index, search] of dnsConfig.searches.entries()) word(`${path}.searches[${index}]`, search, 255);
  for (const [index, option] of dnsConfig.options.entries()) word(`${path}.options[${index}]`, option);
}

function checkPorts(path: string, { portMappings }: PodSandboxConfig__Output): void {
  for (const [index, mapping] of portMappings.entries()) {
    const at = `${path}[${index}]`;
    oneOf(`${at}.protocol`, mapping.protocol, ['TCP', 'UDP', 'SCTP']);
    range(`${at}.container_port`, mapping.containerPort, 1, 65_535);
    range(`${at}.host_port`, mapping.hostPort, 0, 65_535);
    if (mapping.hostIp !== '' && isIP(mapping.hostIp) === 0) {
      invalid(`${at}.host_ip`, `must be an IP address, is ${JSON.stringify(mapping.hostIp)}`);
    }
  }
}

function checkLinux(path: string, linux: LinuxPodSandboxConfig__Output): void {
  text(`${path}.cgroup_parent`, linux.cgroupParent, 4095);
  for (const [key, value] of Object.entries(linux.sysctls)) {
    const at = `${path}.sysctls[${JSON.stringify(key)}]`;
    if (!/^[A-Za-z0-9_-]+([./][A-Za-z0-9_-]+)*$/.test(key)) invalid(at, 'is no name of a sysctl');
    text(at, value, 4096);
  }
  checkResources(`${path}.overhead`, linux.overhead);
  checkResources(`${path}.resources`, linux.resources);
  const context = linux.securityContext;
  if (!context) return;
  const at = `${path}.security_context`;
  checkNamespaces(`${at}.namespace_options`, context.namespaceOptions, POD_PID_MODES);
  checkUsers(at, context);
  checkProfiles(at, context);
}
