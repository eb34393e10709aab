/** The examples do what they are for. */
import type { AddressInfo } from 'node:net';
import type { Captioner } from '@blip2/captioner';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fastifyApp } from '../examples/fastify';
import { POST } from '../examples/next-route';
import { captionServer } from '../examples/plain-http';
import { chatBody, json, openCaptioner, PICTURE } from '../spec/testing';

let captioner: Captioner;
let expected: string;
beforeAll(async () => {
  captioner = await openCaptioner();
  expected = (await captioner.caption(PICTURE)).text;
});
afterAll(() => captioner.close());

describe('the example of', () => {
  it('node:http describes pictures', async () => {
    const server = captionServer(captioner);
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', () => resolve()));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const post = (body: Uint8Array<ArrayBuffer>) => fetch(url, { method: 'POST', body });
    expect(await (await post(PICTURE)).json()).toMatchObject({ text: expected });
    expect((await post(new Uint8Array(10))).status).toBe(400);
    server.closeAllConnections();
    server.close();
  });

  it('Fastify has the paths of the server beside its own', async () => {
    const app = fastifyApp(captioner);
    const url = await app.listen({ port: 0, host: '127.0.0.1' });
    expect(await (await fetch(url)).json()).toEqual({ hello: 'world' });
    const caption = await fetch(`${url}/blip2/caption`, { method: 'POST', body: PICTURE });
    expect(await caption.json()).toMatchObject({ text: expected });
    const stream = await fetch(
      `${url}/blip2/v1/chat/completions`,
      json(chatBody({ stream: true, max_tokens: 4 })),
    );
    expect(await stream.text()).toMatch(/data: \[DONE\]\n\n$/);
    await app.close();
  });

  it('Next.js answers a form', async () => {
    (globalThis as { captioner?: unknown }).captioner = Promise.resolve(captioner);
    const post = (form: FormData) =>
      POST(new Request('http://localhost/api', { method: 'POST', body: form }));
    const form = new FormData();
    expect((await post(form)).status).toBe(400);
    form.set('picture', new Blob([PICTURE]), 'a.png');
    expect(await (await post(form)).json()).toMatchObject({ text: expected });
    form.set('picture', new Blob(['hello']), 'a.png');
    expect((await post(form)).status).toBe(400);
  });
});
