/**
 * The dictionary that SPDY/3 gives to zlib for header blocks: known names and values, each after its length, then fragments
 * without one. Fixed by the protocol to the last byte (draft-mbelshe-httpbis-spdy-00, 2.6.10.1); its Adler-32 is e3c6a7c2.
 */

const WORDS =
  'options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow ' +
  'authorization cache-control connection content-base content-encoding content-language content-length ' +
  'content-location content-md5 content-range content-type date etag expect expires from host if-match ' +
  'if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma ' +
  'proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade ' +
  'user-agent vary via warning www-authenticate method get status';

const PHRASES: readonly string[] = [
  ...WORDS.split(' '),
  '200 OK',
  ...'version HTTP/1.1 url public set-cookie keep-alive origin'.split(' '),
];

const FRAGMENTS =
  '100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505' +
  '203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden' +
  '404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable' +
  'Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT' +
  'chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,' +
  'publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.';

/** Text after its length, four bytes, as header blocks have it. */
export function counted(text: string): Buffer {
  const bytes = Buffer.from(text);
  const all = Buffer.allocUnsafe(4 + bytes.length);
  all.writeUInt32BE(bytes.length);
  bytes.copy(all, 4);
  return all;
}

export const SPDY_DICTIONARY: Buffer = Buffer.concat([...PHRASES.map(counted), Buffer.from(FRAGMENTS)]);
