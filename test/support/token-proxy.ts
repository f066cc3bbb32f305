/** Stands before a registry and asks for bearer tokens, which it sells for a refresh token: as cloud registries do. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';

export interface TokenProxy extends AsyncDisposable {
  readonly host: string;
}

export async function startTokenProxy(upstream: string, refreshToken: string): Promise<TokenProxy> {
  const access = 'an-access-token';
  let host = '';
  const server = createServer((request, response) => {
    void (async () => {
      const url = new URL(request.url ?? '/', `http://${host}`);
      if (url.pathname === '/token') {
        const form = new URLSearchParams(await text(request));
        const known = form.get('grant_type') === 'refresh_token' && form.get('refresh_token') === refreshToken;
        response.writeHead(known ? 200 : 401, { 'content-type': 'application/json' });
        response.end(JSON.stringify(known ? { access_token: access, expires_in: 300 } : { details: 'unknown token' }));
        return;
      }
      if (request.headers.authorization !== `Bearer ${access}`) {
        const challenge = `Bearer realm="http://${host}/token",service="test",scope="repository:x:pull"`;
        response.writeHead(401, { 'www-authenticate': challenge }).end();
        return;
      }
      const answer = await fetch(`http://${upstream}${url.pathname}`, {
        method: request.method ?? 'GET',
        headers: { accept: request.headers.accept ?? '*/*' },
      });
      const headers = ['content-type', 'docker-content-digest'].map((name) => [name, answer.headers.get(name) ?? '']);
      response.writeHead(answer.status, Object.fromEntries(headers)).end(await answer.bytes());
    })().catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the token proxy has no port');
  host = `127.0.0.1:${address.port}`;
  return {
    host,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
