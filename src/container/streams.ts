/** Exec, attach and port-forward: asks containerd in the machine for a session and opens the byte stream to it. */
import { InfraletError } from '../base/errors.ts';
import type { AgentChannel } from '../guest/channel.ts';
import type { GuestStream, StreamRequest } from './service.ts';

const CALL_MS = 60_000;

/** @param guestId containerd's id of the container or the pod sandbox. */
export async function openGuestStream(
  request: StreamRequest,
  guestId: string,
  channel: AgentChannel,
  signal: AbortSignal,
): Promise<GuestStream> {
  const url = new URL(await guestUrl(request, guestId, channel, signal));
  const socket = await channel.openStreaming(signal);
  return {
    socket,
    path: `${url.pathname}${url.search}`,
    host: url.host,
    ...(request.kind === 'portforward' ? {} : { streams: request }),
  };
}

async function guestUrl(
  request: StreamRequest,
  guestId: string,
  channel: AgentChannel,
  signal: AbortSignal,
): Promise<string> {
  const options = { signal, timeoutMs: CALL_MS };
  const text = await (async () => {
    switch (request.kind) {
      case 'exec': {
        const { cmd, tty, stdin, stdout, stderr } = request;
        const response = await channel.cri(
          'Exec',
          { containerId: guestId, cmd: [...cmd], tty, stdin, stdout, stderr },
          options,
        );
        return response.url;
      }
      case 'attach': {
        const { tty, stdin, stdout, stderr } = request;
        return (await channel.cri('Attach', { containerId: guestId, tty, stdin, stdout, stderr }, options)).url;
      }
      case 'portforward':
        return (await channel.cri('PortForward', { podSandboxId: guestId, port: [...request.ports] }, options)).url;
      default:
        return request satisfies never;
    }
  })();
  // The guest is not trusted: only the path of its answer is used, and only if it is one.
  if (!URL.canParse(text) || /[\r\n]/.test(text)) {
    throw new InfraletError('DATA_LOSS', 'the machine answered with something that is no URL');
  }
  return text;
}
