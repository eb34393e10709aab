/** A hub on this machine with one small model, for `blip2 pull`. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { TINY } from './testing';

const FILES = ['config.json', 'tokenizer.json', 'model.safetensors'];
const COMMIT = 'c'.repeat(40);

/** Starts the hub. Returns its address and the function that stops it. */
export async function startHub(): Promise<{ url: string; stop: () => void }> {
  const files = new Map(FILES.map((name) => [name, readFileSync(join(TINY, name))]));
  const entries = [...files].map(([path, bytes]) => {
    const oid = createHash('sha256').update(bytes).digest('hex');
    return { type: 'file', path, size: bytes.length, oid: COMMIT, lfs: { oid, size: bytes.length } };
  });
  const server = createServer((request, response) => {
    const path = new URL(request.url!, 'http://hub').pathname;
    const file = files.get(path.slice(path.lastIndexOf('/') + 1));
    if (path.includes('/tree/')) return void response.end(JSON.stringify(entries));
    if (path.startsWith('/api/')) return void response.end(JSON.stringify({ id: 'acme/tiny', sha: COMMIT }));
    if (!file) return void response.writeHead(404).end();
    const from = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const range = { 'content-range': `bytes ${from}-${file.length - 1}/${file.length}` };
    response.writeHead(from > 0 ? 206 : 200, from > 0 ? range : {}).end(file.subarray(from));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, stop: () => server.close() };
}
