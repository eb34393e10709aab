/** A studio with a few pictures, for specs; its command is a script that stands in for blip2, unless another one is given. */
import { copyFile, mkdir, mkdtemp, realpath, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startStudio } from '../src/index';
import type { RunningStudio } from '../src/index';

const IMAGES = fileURLToPath(new URL('../../blip2/fixtures/images/', import.meta.url));

export const MARKUP = '<img src=x onerror=alert(1)>';
const ROWS = [
  { file_name: 'red.png', text: 'a red thing' },
  { file_name: 'grey.png', text: `a ${MARKUP} thing` },
  { file_name: 'a <b>&"x.png', text: 'a blue thing' },
];

/** A folder with `data/`, and `outside/` beside it. */
export async function tinyFolder(): Promise<{ root: string; outside: string }> {
  const dir = await realpath(await mkdtemp(join(tmpdir(), 'studio-')));
  const [root, outside] = [join(dir, 'root'), join(dir, 'outside')];
  await mkdir(join(root, 'data'), { recursive: true });
  await mkdir(outside);
  for (const [i, name] of ['red', 'grey', 'blue-alpha'].entries())
    await copyFile(join(IMAGES, `${name}.png`), join(root, 'data', ROWS[i].file_name));
  await copyFile(join(IMAGES, 'red.png'), join(outside, 'secret.png'));
  await writeFile(
    join(root, 'data', 'metadata.jsonl'),
    ROWS.map((row) => JSON.stringify(row) + '\n').join(''),
  );
  return { root, outside };
}

export interface Client {
  studio: RunningStudio;
  /** the folder of the page */
  page: string;
  origin: string;
  token: string;
  cookie: string;
  /** a request with the session; `token` true adds the page's token */
  get(path: string, init?: RequestInit): Promise<Response>;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
}

/** The built page of specs that need none. */
async function emptyPage(): Promise<string> {
  const page = await mkdtemp(join(tmpdir(), 'studio-page-'));
  await mkdir(join(page, 'assets'));
  await writeFile(join(page, 'index.html'), '<meta name="studio-token" content="STUDIO_TOKEN">');
  await writeFile(join(page, 'assets', 'a.js'), '');
  return page;
}

/** Starts studio and signs in. @param worker the captioner's program */
export async function client(root: string, command: readonly string[], worker?: URL): Promise<Client> {
  const page = await emptyPage();
  const runs = join(root, 'runs');
  const studio = await startStudio({ folders: [root], runs, port: 0, command, page, worker });
  const { origin } = new URL(studio.url);
  const signed = await fetch(studio.url, { redirect: 'manual' });
  const cookie = signed.headers.get('set-cookie')!.split(';')[0];
  const get: Client['get'] = (path, { headers, ...init } = {}) =>
    fetch(origin + path, { ...init, headers: { cookie, ...(headers as Record<string, string>) } });
  const token = /content="([^"]+)"/.exec(await (await get('/')).text())![1];
  const post: Client['post'] = (path, body, headers = { 'x-studio-token': token }) =>
    get(path, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body), headers });
  return { studio, page, origin, token, cookie, get, post };
}

/** The events of a response until `enough` is true of one. */
export async function events<E>(response: Response, enough: (event: E) => boolean): Promise<E[]> {
  const found: E[] = [];
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ''; ;) {
    const { value, done } = await reader.read();
    if (done) return found;
    text += value;
    const parts = text.split('\n\n');
    text = parts.pop()!;
    for (const part of parts) {
      const data = part.split('\n').flatMap((line) => (line.startsWith('data: ') ? [line.slice(6)] : []));
      if (data.length === 0) continue;
      const event = JSON.parse(data.join('\n')) as E;
      found.push(event);
      if (enough(event)) {
        await reader.cancel();
        return found;
      }
    }
  }
}
