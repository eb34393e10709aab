/** A captioner over HTTP, as a function from requests to responses: for a server of its own, or inside another one. */
import { basename } from 'node:path';
import type { Captioner, TextOptions } from '@blip2/captioner';
import { Hono } from 'hono';
import type { Context } from 'hono';
import { cors } from 'hono/cors';
import { boundBodies, parseJson, readBody } from './body';
import type { Reserve } from './body';
import { answerChat, modelField, readChat } from './chat';
import { readDirect } from './direct';
import { errorResponse, HttpError } from './errors';
import { checkHost, checkOrigin, checkToken } from './guard';
import { createMetrics } from './metrics';
import { textIn, textOptions } from './options';
import type { RemoteOptions } from './remote';

export interface AppOptions {
  /** If there is one, requests need the header `Authorization: Bearer TOKEN`; /healthz and /readyz do not. */
  token?: string;
  /** Names that this server has, without port. Default: those of loopback; `*`: any, for apps behind a server that checks them. */
  hosts?: readonly string[] | '*';
  /** Other origins whose pages may ask, such as `https://example.com`; none by default. */
  origins?: readonly string[];
  /** The name of the base model; by default that of its folder. Adapters have their own names. */
  name?: string;
  /** Most bytes of a body; 20 MiB by default. */
  max_body?: number;
  /** Most bytes of all bodies and fetched pictures under way; 256 MiB by default. */
  max_bodies?: number;
  /** Most beams of a request; 16 by default. */
  max_beams?: number;
  /** Most new tokens of a request; 1024 by default. */
  max_tokens?: number;
  /** Hosts from which pictures may be fetched, such as `images.example.com`; none by default. */
  image_hosts?: readonly string[];
  /** Whether it is about to end, so that it is not ready. */
  isDraining?: () => boolean;
}

type Env = { Variables: { reserve: Reserve } };

/** The paths of the server. `app.fetch(request)` answers a Web-standard Request. */
export function createApp(captioner: Captioner, options: AppOptions = {}): Hono<Env> {
  const { token, hosts, origins = [], max_body = 20 * 2 ** 20, max_bodies = 2 ** 28 } = options;
  const names = modelNames(captioner, options.name);
  const metrics = createMetrics(captioner);
  const app = new Hono<Env>();
  app.onError((error) => errorResponse(error));
  app.notFound((c) => noSuchPath(c));
  app.use(metrics.observe);
  app.use(async (c, next) => {
    await next();
    c.header('x-content-type-options', 'nosniff');
    c.header('content-security-policy', "default-src 'none'; frame-ancestors 'none'");
    c.header('cache-control', 'no-store');
  });
  app.use(checkHost(hosts), checkOrigin(origins));
  if (origins.length > 0)
    app.use(cors({ origin: [...origins], allowHeaders: ['authorization', 'content-type'] }));
  healthRoutes(app, captioner, options);

  if (token !== undefined) app.use(checkToken(token));
  app.get('/metrics', async (c) =>
    c.body(await metrics.registry.metrics(), 200, { 'content-type': metrics.registry.contentType }),
  );
  app.get('/v1/models', (c) => c.json({ object: 'list', data: [...names.keys()].map(modelOf) }));
  app.get('/v1/models/:id', (c) => c.json(modelOf(nameIn(names, c.req.param('id')).name)));

  app.use(boundBodies({ max_body, max_bodies }));
  textRoutes(app, captioner, names, { ...options, max_body });
  return app;
}

function noSuchPath(c: Context): Response {
  const allow = METHODS.get(c.req.path);
  if (allow === undefined) return errorResponse(new HttpError(404, 'there is no such path', 'not_found'));
  const response = errorResponse(
    new HttpError(405, `expected ${allow}, found ${c.req.method}`, 'wrong_method'),
  );
  response.headers.set('allow', allow);
  return response;
}

function healthRoutes(app: Hono<Env>, captioner: Captioner, { isDraining }: AppOptions): void {
  app.get('/healthz', (c) => c.json({ status: 'ok' }));
  app.get('/readyz', (c) => {
    const status = isDraining?.() ? 'draining' : captioner.state().state;
    return c.json({ status }, status === 'ready' ? 200 : 503);
  });
}

type TextRouteOptions = AppOptions & Required<Pick<AppOptions, 'max_body'>>;

/** Captions and answers. @param names the adapter of each name of a model */
function textRoutes(
  app: Hono<Env>,
  captioner: Captioner,
  names: ReadonlyMap<string, string>,
  { max_body, max_beams = 16, max_tokens = 1024, image_hosts = [] }: TextRouteOptions,
): void {
  const limits = { max_beams, max_tokens };
  const remoteOf = (c: Context<Env>): RemoteOptions => ({
    hosts: image_hosts,
    max_bytes: max_body,
    time_limit_ms: 10_000,
    reserve: c.get('reserve'),
  });
  app.post('/v1/chat/completions', async (c) => {
    const { signal } = c.req.raw;
    const body = parseJson(await readBody(c.req.raw, max_body));
    const { name, adapter } = nameIn(names, modelField(body));
    const chat = await readChat(body, limits, remoteOf(c), signal);
    const request = { ...chat, options: { ...chat.options, adapter, signal } };
    return answerChat(c, captioner, request, name);
  });
  const direct = (isAnswer: boolean) => async (c: Context<Env>) => {
    const request = c.req.raw;
    const { picture, fields } = await readDirect(request, await readBody(request, max_body), remoteOf(c));
    const { name, adapter } = nameIn(names, textIn(fields, 'model'));
    const o: TextOptions = {
      ...textOptions(fields, limits, isAnswer ? ['model', 'question'] : ['model']),
      adapter,
      signal: request.signal,
    };
    const question = textIn(fields, 'question');
    if (isAnswer && !question?.trim()) throw new HttpError(400, 'question: expected a text, found none');
    const made = isAnswer
      ? await captioner.answer(picture, question!, o)
      : await captioner.caption(picture, o);
    return c.json({ model: name, ...made });
  };
  app.post('/caption', direct(false));
  app.post('/answer', direct(true));
}

/** The method of each path, for requests with another one. */
const METHODS = new Map(
  Object.entries({
    POST: ['/v1/chat/completions', '/caption', '/answer'],
    GET: ['/v1/models', '/healthz', '/readyz', '/metrics'],
  }).flatMap(([method, paths]) => paths.map((path) => [path, method] as const)),
);

const started = Math.floor(Date.now() / 1000);
const modelOf = (id: string) => ({ id, object: 'model', created: started, owned_by: 'blip2' });

/** The adapter of each name of a model, the default first. */
function modelNames({ info }: Captioner, name = basename(info.model)): Map<string, string> {
  return new Map(info.adapters.map((adapter) => [adapter === 'base' ? name : adapter, adapter]));
}

/** @throws HttpError (404) */
function nameIn(
  names: ReadonlyMap<string, string>,
  given: string | undefined,
): { name: string; adapter: string } {
  const name = given ?? [...names.keys()][0];
  const adapter = names.get(name);
  if (adapter !== undefined) return { name, adapter };
  throw new HttpError(
    404,
    `model: expected one of ${[...names.keys()].join(', ')}, found ${JSON.stringify(name.slice(0, 80))}`,
    'model_not_found',
  );
}
