/** Fetches a picture from a host that is allowed, and from no other: not by a redirect, and not by a name that leads to a private address. */
import { lookup as dnsLookup } from 'node:dns/promises';
import { request as requestHttp } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { request as requestHttps } from 'node:https';
import { BlockList, isIP } from 'node:net';
import type { LookupFunction } from 'node:net';
import type { Reserve } from './body';
import { HttpError } from './errors';

export interface RemoteOptions {
  /** Hosts, as `images.example.com` (https) or `http://host:8080`. None by default. */
  hosts: readonly string[];
  /** Most bytes. */
  max_bytes: number;
  /** Milliseconds for all of it. */
  time_limit_ms: number;
  /** Takes memory for `max_bytes`. */
  reserve: Reserve;
  /** Whether an address must not be asked; the default refuses every one that is not public. */
  isForbidden?: (address: string) => boolean;
}

/** Special-purpose addresses: RFC 6890 and its successors at IANA. */
const forbidden = new BlockList();
for (const [net, bits] of [
  ...([
    ['0.0.0.0', 8],
    ['10.0.0.0', 8],
    ['100.64.0.0', 10],
    ['127.0.0.0', 8],
    ['169.254.0.0', 16],
  ] as const),
  ...([
    ['172.16.0.0', 12],
    ['192.0.0.0', 24],
    ['192.0.2.0', 24],
    ['192.88.99.0', 24],
    ['192.168.0.0', 16],
  ] as const),
  ...([
    ['198.18.0.0', 15],
    ['198.51.100.0', 24],
    ['203.0.113.0', 24],
    ['224.0.0.0', 4],
    ['240.0.0.0', 4],
  ] as const),
])
  forbidden.addSubnet(net, bits, 'ipv4');

/** Whether an address is not public. Of IPv6 only global unicast is (2000::/3), without tunnels, documentation and benchmarks. */
export function isPrivate(address: string): boolean {
  if (isIP(address) === 4) return forbidden.check(address, 'ipv4');
  return !global.check(address, 'ipv6') || tunnels.check(address, 'ipv6');
}
const global = new BlockList();
global.addSubnet('2000::', 3, 'ipv6');
const tunnels = new BlockList();
for (const [net, bits] of [
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
] as const)
  tunnels.addSubnet(net, bits, 'ipv6');

/** @throws HttpError */
export async function fetchPicture(
  address: string,
  o: RemoteOptions,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const url = allowedUrl(address, o.hosts);
  const isForbidden = o.isForbidden ?? isPrivate;
  const host = url.hostname.replace(/^\[|\]$/g, '');
  if (isIP(host) && isForbidden(host)) throw privateAddress();
  o.reserve(o.max_bytes);
  const limit = AbortSignal.any([signal, AbortSignal.timeout(o.time_limit_ms)]);
  try {
    const response = await open(url, publicLookup(isForbidden), limit);
    return await bytesOf(response, o.max_bytes);
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof HttpError) throw error;
    throw new HttpError(400, 'image_url: the picture cannot be fetched', 'invalid_image_url');
  }
}

function allowedUrl(address: string, hosts: readonly string[]): URL {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  const origins = hosts.map(
    (host) => (host.includes('://') ? new URL(host) : new URL(`https://${host}`)).origin,
  );
  if (url && url.username === '' && url.password === '' && origins.includes(url.origin)) return url;
  throw new HttpError(
    400,
    'image_url: this server may not fetch from that host; send the picture as data:image/…;base64,…',
    'image_host_not_allowed',
  );
}

const privateAddress = () =>
  new HttpError(
    400,
    'image_url: the host has a private address, from which nothing is fetched',
    'image_host_not_allowed',
  );

/** Resolves names for the connection itself, so that the address that was checked is the one that is asked. */
function publicLookup(isForbidden: (address: string) => boolean): LookupFunction {
  return (host, options, callback) => {
    const fail = (error: Error) => callback(error as NodeJS.ErrnoException, '', 4);
    dnsLookup(host, {
      all: true,
      family: options.family === 'IPv4' ? 4 : options.family === 'IPv6' ? 6 : (options.family ?? 0),
    }).then((found) => {
      if (found.length === 0 || found.some(({ address }) => isForbidden(address)))
        return fail(privateAddress());
      if (options.all) callback(null, found);
      else callback(null, found[0].address, found[0].family);
    }, fail);
  };
}

function open(url: URL, lookup: LookupFunction, signal: AbortSignal): Promise<IncomingMessage> {
  const request = url.protocol === 'https:' ? requestHttps : requestHttp;
  return new Promise((resolve, reject) => {
    request(url, { lookup, signal, agent: false, headers: { accept: 'image/*' } }, resolve)
      .on('error', reject)
      .end();
  });
}

async function bytesOf(response: IncomingMessage, max_bytes: number): Promise<Uint8Array> {
  try {
    if (response.statusCode !== 200)
      throw new HttpError(
        400,
        `image_url: expected status 200, found ${response.statusCode}`,
        'invalid_image_url',
      );
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const part of response as AsyncIterable<Uint8Array>) {
      size += part.length;
      if (size > max_bytes)
        throw new HttpError(
          413,
          `image_url: expected at most ${max_bytes} bytes, found more`,
          'body_too_large',
        );
      parts.push(part);
    }
    return Buffer.concat(parts, size);
  } finally {
    response.destroy();
  }
}
