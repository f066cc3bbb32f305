/** containerd's complaints about a configuration, with the field that they are about. Pure. */
import { InfraletError } from '../base/errors.ts';
import type { ContainerConfig__Output } from '../gen/runtime/v1/ContainerConfig.ts';

/** The error as it is, or one that names the field of the request that containerd could not honour. */
export function namingField(error: unknown, config: ContainerConfig__Output): unknown {
  if (!(error instanceof InfraletError)) return error;
  const { message } = error;
  const device = config.devices.findIndex(({ hostPath }) => message.includes(hostPath));
  if (device >= 0) {
    return refused(`config.devices[${device}].host_path`, error, 'devices are those of the machine, not of the node');
  }
  if (/\bCDI\b/.test(message)) {
    return refused('config.CDI_devices', error, 'CDI specifications are read in the machine: /etc/cdi and /run/cdi');
  }
  if (/\bhuge pages\b/.test(message)) {
    const hint = "huge pages come out of the machine's memory: raise the pod's memory limit by as much";
    return refused('config.linux.resources.hugepage_limits', error, hint);
  }
  return error;
}

function refused(field: string, cause: InfraletError, hint: string): InfraletError {
  return new InfraletError('INVALID_ARGUMENT', `${field}: ${cause.message}`, { cause, hint });
}
