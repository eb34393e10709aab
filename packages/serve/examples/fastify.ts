/** All paths of the server inside an app of Fastify, below /blip2. */
import type { Captioner } from '@blip2/captioner';
import { createApp } from '@blip2/serve';
import { fastify } from 'fastify';
import type { FastifyInstance } from 'fastify';

export function fastifyApp(captioner: Captioner): FastifyInstance {
  const blip2 = createApp(captioner, { hosts: '*' }); // the app itself decides who may ask
  const app = fastify({ bodyLimit: 20 * 2 ** 20 });
  app.get('/', () => ({ hello: 'world' }));
  app.register(async (scope) => {
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
    scope.all('/blip2/*', async (request, reply) => {
      const url = new URL(request.url.replace(/^\/blip2/, ''), `http://${request.host}`);
      const headers = new Headers();
      for (const name of ['content-type', 'authorization', 'origin']) {
        const value = request.headers[name];
        if (typeof value === 'string') headers.set(name, value);
      }
      const body = request.body ? new Uint8Array(request.body as Buffer) : undefined;
      return reply.send(await blip2.fetch(new Request(url, { method: request.method, headers, body })));
    });
  });
  return app;
}
