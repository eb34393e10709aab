/** Connections: slow clients, many at a time, and the end of the server. */
import { once } from 'node:events';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Captioner } from '@blip2/captioner';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { chatBody, DATA_URL, json, openCaptioner } from '../spec/testing';
import { startServer } from './index';
import type { RunningServer, ServerOptions } from './index';

let captioner: Captioner;
let server: RunningServer;
beforeAll(async () => void (captioner = await openCaptioner({ max_queue: 300 })));
afterAll(() => captioner.close());
const untilIdle = async () => {
  for (let i = 0; i < 500 && captioner.state().running > 0; i++) await sleep(10);
  expect(captioner.state().running).toBe(0);
};
afterEach(async () => {
  await server.close({ grace_ms: 0 });
  await untilIdle();
});

const start = async (options: ServerOptions = {}) =>
  (server = await startServer(captioner, { port: 0, request_timeout_ms: 500, ...options }));
const isAlive = async () => (await fetch(`${server.url}/healthz`)).status === 200;
const LONG = { max_new_tokens: 50, min_new_tokens: 50 };

/** Sends text on a connection of its own, and returns all that comes back. */
function raw(text: string): { socket: Socket; answer: Promise<string> } {
  const { port, hostname } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  let found = '';
  socket.on('data', (data: Buffer) => (found += data.toString())).on('error', () => undefined);
  socket.write(text);
  return { socket, answer: new Promise((resolve) => socket.on('close', () => resolve(found))) };
}

describe('a server', () => {
  it('does not listen beyond this machine without a token', async () => {
    await start();
    await expect(startServer(captioner, { host: '0.0.0.0', port: 0 })).rejects.toThrow('needs a token');
    const open = await startServer(captioner, { host: '0.0.0.0', port: 0, token: 'x' });
    const { port } = new URL(open.url);
    expect((await fetch(`http://127.0.0.1:${port}/v1/models`)).status).toBe(401);
    expect((await fetch(`http://127.0.0.1:${port}/readyz`)).status).toBe(200);
    await open.close();
  });

  it.each([
    ['sends its headers slowly', 'POST /caption HTTP/1.1\r\nHost: localhost\r\n'],
    ['sends its body slowly', 'POST /caption HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc'],
  ])('ends a connection that %s', async (_, text) => {
    await start();
    const { answer } = raw(text);
    expect(await answer).toMatch(/^HTTP\/1.1 408 /);
    expect(await isAlive()).toBe(true);
  });

  it('ends a connection without traffic', async () => {
    await start({ idle_timeout_ms: 300 });
    expect(await raw('').answer).toBe('');
    expect(await isAlive()).toBe(true);
  });

  it('refuses damaged requests, and paths out of the server', async () => {
    await start();
    expect(await raw('hello\r\n\r\n').answer).toMatch(/^HTTP\/1.1 400 /);
    const path = '/..%2f..%2f..%2fetc/passwd';
    const { answer } = raw(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
    expect(await answer).toMatch(/^HTTP\/1.1 404 /);
    expect(await raw('GET / HTTP/1.1\r\nConnection: close\r\n\r\n').answer).toMatch(/^HTTP\/1.1 400 /); // no Host
    expect(await isAlive()).toBe(true);
  });

  it('answers 200 connections, a bounded number of requests at a time, and always questions about its health', async () => {
    await start({ max_requests: 50, request_timeout_ms: 5000 });
    const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`;
    const sockets = Array.from({ length: 200 }, () => raw(''));
    await Promise.all(sockets.map(({ socket }) => once(socket, 'connect')));
    for (const { socket } of sockets) socket.write(get('/v1/models'));
    for (const { answer } of sockets) expect(await answer).toMatch(/^HTTP\/1.1 200 /);
    const head = 'POST /caption HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n';
    const slow = Array.from({ length: 50 }, () => raw(head));
    for (let i = 0; (await raw(get('/v1/models')).answer).startsWith('HTTP/1.1 200') && i < 100;) i++;
    const refused = await raw(get('/v1/models')).answer;
    expect(refused).toMatch(/^HTTP\/1.1 503 /);
    expect(refused).toMatch(/retry-after: 5/i);
    expect(await raw(get('/readyz')).answer).toMatch(/^HTTP\/1.1 200 /);
    expect(await isAlive()).toBe(true);
    for (const { socket } of slow) socket.destroy();
  });

  it('closes connections without a request when there are too many', async () => {
    await start({ max_requests: 4, request_timeout_ms: 5000 });
    const idle = Array.from({ length: 40 }, () => raw('GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n'));
    const ended = idle.map(({ answer }) => answer);
    await Promise.any(ended);
    for (let i = 0; !(await isAlive().catch(() => false)) && i < 100; i++) await sleep(10);
    expect(await isAlive()).toBe(true);
    for (const { socket } of idle) socket.destroy();
  });

  it.each([
    ['a length that is not true', 'Content-Length: 5\r\n\r\nabcdefghij', '400'],
    ['a length that is no number', 'Content-Length: x\r\n\r\n', '400'],
    ['a negative length', 'Content-Length: -1\r\n\r\n', '400'],
    ['two lengths', 'Content-Length: 1\r\nContent-Length: 2\r\n\r\na', '400'],
    ['a length and chunks', 'Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', '400'],
    ['damaged chunks', 'Transfer-Encoding: chunked\r\n\r\nxyz\r\n', '400'],
    ['an unknown encoding', 'Transfer-Encoding: gzip\r\n\r\n', '400'],
    ['two names', 'Host: evil.example\r\nConnection: close\r\n\r\n', '4'],
    ['headers without end', `X: ${'a'.repeat(100_000)}\r\n\r\n`, '431'],
    ['a line break in a header', 'X: a\rb\r\n\r\n', '400'],
    ['too many bytes', 'Content-Length: 99999999999\r\n\r\nabc', '413'],
  ])('refuses %s', async (_, rest, status) => {
    await start();
    const { answer } = raw(`POST /caption HTTP/1.1\r\nHost: localhost\r\n${rest}`);
    expect(await answer).toMatch(new RegExp(`HTTP/1\\.1 ${status}`));
    expect(await isAlive()).toBe(true);
  });

  it('refuses chunks without end as soon as they are too large, and reads no more of them', async () => {
    await start({ max_body: 100_000, request_timeout_ms: 20_000 });
    const { socket, answer } = raw(
      'POST /caption HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n',
    );
    let sent = 0;
    while (!socket.destroyed && sent < 500_000_000) {
      sent += 10_000;
      const room = new Promise((resolve) => void socket.once('drain', resolve));
      if (!socket.write(`2710\r\n${'a'.repeat(10_000)}\r\n`)) await Promise.race([room, answer]);
    }
    expect(await answer).toMatch(/^HTTP\/1.1 413 /);
    expect(sent).toBeLessThan(100_000_000);
    expect(await isAlive()).toBe(true);
  });

  it.each(['TRACE', 'CONNECT', 'HEAD', 'OPTIONS', 'FOO'])('does nothing at %s', async (method) => {
    await start();
    const { answer } = raw(
      `${method} /caption HTTP/1.1\r\nHost: localhost\r\nX-Secret: echo\r\nConnection: close\r\n\r\n`,
    );
    const found = await answer;
    expect(found).toMatch(/^$|^HTTP\/1.1 4/);
    expect(found).not.toContain('echo');
    expect(await isAlive()).toBe(true);
  });

  it('a stream whose client goes away ends its request', async () => {
    await start();
    const leaving = new AbortController();
    const init = json(chatBody({ stream: true, max_tokens: 30 }));
    const { body } = await fetch(`${server.url}/v1/chat/completions`, { ...init, signal: leaving.signal });
    const { value } = await body!.getReader().read();
    expect(Buffer.from(value!).toString()).toContain('chat.completion.chunk');
    leaving.abort();
    await untilIdle();
    expect(await isAlive()).toBe(true);
  });

  it('a client that does not read its stream holds nobody up', async () => {
    await start();
    const body = JSON.stringify(chatBody({ stream: true, max_tokens: 30 }));
    const head = `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`;
    const lazy = Array.from({ length: 10 }, () => raw(head + body));
    for (const { socket } of lazy) socket.pause();
    const response = await fetch(`${server.url}/caption`, json({ image: DATA_URL, max_new_tokens: 3 }));
    expect(response.status).toBe(200);
    for (const { socket } of lazy) socket.destroy();
  });

  it('when it closes lets requests finish, takes no more, and is not ready', async () => {
    await start();
    const under = fetch(`${server.url}/caption`, json({ image: DATA_URL, ...LONG }));
    while (captioner.state().running === 0) await sleep(5);
    const closed = server.close();
    await expect(fetch(`${server.url}/healthz`)).rejects.toThrow();
    const response = await under;
    expect(response.status).toBe(200);
    expect(((await response.json()) as { tokens: object[] }).tokens).toHaveLength(50);
    await closed;
  });

  it('after the time for that ends those that are left', async () => {
    await start();
    const under = fetch(
      `${server.url}/caption`,
      json({ image: DATA_URL, max_new_tokens: 50, min_new_tokens: 50, num_beams: 4 }),
    );
    while (captioner.state().running === 0) await sleep(5);
    await Promise.all([server.close({ grace_ms: 10 }), expect(under).rejects.toThrow()]);
    await untilIdle();
  });
});
