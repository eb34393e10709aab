/** Texts for a picture, of models with weights. */
import { cp, mkdir, mkdtemp, readFile, realpath, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { createCaptioner } from '@blip2/captioner';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundle } from '../../../../tsup.config';
import type { Client } from '../../spec/studio';
import { client } from '../../spec/studio';
import type { TryEvent } from '../api';
import { openFolders } from '../folders';
import { openRuns } from '../runs';
import type { Runs } from '../runs';
import { openCaptioners } from './captioners';
import { triedModels } from './models';
import { triedTexts } from './texts';
import { wordsOf } from './words';

const FIXTURES = fileURLToPath(new URL('../../../blip2/fixtures/', import.meta.url));
const picture = new Uint8Array(await readFile(`${FIXTURES}images/red.png`));

/** A base, a run with an adapter on it, and a run that made a whole model. */
async function trainedFolder(): Promise<string> {
  const root = await realpath(await mkdtemp(join(tmpdir(), 'studio-try-')));
  const base = join(root, 'base');
  await cp(`${FIXTURES}tiny`, base, { recursive: true });
  for (const [name, made, from] of [
    ['a', 'adapter', 'tiny-adapter'],
    ['b', 'model', 'tiny'],
  ]) {
    await cp(FIXTURES + from, join(root, 'runs', name, made), { recursive: true });
    await writeFile(join(root, 'runs', name, 'config.yaml'), `model: ${base}\ndata: ${root}\n`);
  }
  await mkdir(join(root, 'runs', 'c'));
  return root;
}

const eventsIn = (text: string) =>
  text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as TryEvent);

let worker: URL;
let root: string;
let runs: Runs;
let tried: (names: string[]) => ReturnType<typeof triedModels>;
beforeAll(async () => {
  worker = pathToFileURL(await bundle(new URL('../../../captioner/src/worker.ts', import.meta.url)));
  root = await trainedFolder();
  const folders = await openFolders([root]);
  runs = await openRuns(join(root, 'runs'), [], folders);
  tried = (names) => triedModels(names, runs, folders);
});

describe('a picture that is sent to the server', () => {
  let studio: Client;
  beforeAll(async () => void (studio = await client(root, [process.execPath, '-e', ''], worker)));
  afterAll(() => studio.studio.close());
  const send = (path: string, init: RequestInit = {}) =>
    studio.get(`/api/try?${path}`, {
      ...{ method: 'POST', body: picture, headers: { 'x-studio-token': studio.token } },
      ...init,
    });

  it('is described by the base and the runs: words before their texts, which are those of a captioner', async () => {
    const answer = await send('run=a&run=b');
    expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'application/x-ndjson']);
    const chunks: string[] = [];
    for await (const chunk of answer.body!.pipeThrough(new TextDecoderStream())) chunks.push(chunk);
    expect(eventsIn(chunks[0])[0]).toMatchObject({ type: 'word', at: 0 });
    expect(eventsIn(chunks[0]).every(({ type }) => type === 'word')).toBe(true);
    const all = eventsIn(chunks.join(''));
    const texts = all.filter((event) => event.type === 'text').sort((a, b) => a.text - b.text);
    expect(texts.map(({ text }) => text)).toEqual([0, 1, 2]);
    await using captioner = await createCaptioner({
      ...{ model: `${FIXTURES}tiny`, adapter: `${FIXTURES}tiny-adapter`, worker },
    });
    for (const [i, adapter] of ['base', 'default', 'base'].entries()) {
      const { text } = await captioner.caption(picture, { adapter });
      expect(texts[i].said).toBe(text);
      expect(texts[i].words.map((word) => word.text).join('')).toBe(text.replace(/\s/g, ''));
      const grown: string[] = [];
      for (const event of all)
        if (event.type === 'word' && event.text === i) grown[event.at] = event.word.text;
      expect(grown).toEqual(texts[i].words.map((word) => word.text));
      for (const { probability, map } of texts[i].words) {
        expect(probability).toBeGreaterThan(0);
        expect(Math.max(...map!)).toBe(1);
      }
    }
    expect(texts[0].said).not.toBe(texts[1].said);
  });

  it('has a status if it is no picture, and a question has an answer', async () => {
    const wrong = await send('run=a', { body: 'no picture' });
    expect(wrong.status).toBe(422);
    expect(await wrong.text()).toContain('image');
    const answer = eventsIn(await (await send('run=a&question=what is it ?')).text());
    expect(answer.filter(({ type }) => type === 'text')).toHaveLength(2);
    expect((await send('run=c')).status).toBe(422); // has no result
  });

  it('may be replaced by another one at any time: five that are left in the middle cost no place', async () => {
    for (let i = 0; i < 5; i++) {
      const leaving = new AbortController();
      const answer = await send('run=a', { signal: leaving.signal });
      await answer.body!.getReader().read();
      leaving.abort();
    }
    const last = await Promise.all([1, 2, 3].map(async () => (await send('run=a')).text()));
    for (const text of last) expect(eventsIn(text).filter(({ type }) => type === 'text')).toHaveLength(2);
  });
});

describe('models', () => {
  const all = async (events: ReadableStream<TryEvent>) => {
    const found: TryEvent[] = [];
    for await (const event of events) found.push(event);
    return found.filter(({ type }) => type === 'text').length;
  };

  it('stay in memory until others are asked for, or their files have changed', async () => {
    const captioners = openCaptioners(worker);
    const opened = async (names: string[]) =>
      captioners.use(await tried(names), new AbortController().signal, (used) => Promise.resolve([...used]));
    const [base, a] = await opened(['a']);
    expect(a).toBe(base); // two names, one model in memory
    expect(await opened(['a'])).toEqual([base, a]);
    await utimes(join(root, 'runs', 'a', 'adapter', 'adapter_model.safetensors'), 1, 1);
    const [changed] = await opened(['a']);
    expect(changed).not.toBe(base);
    expect(base.state().state).toBe('closed');
    const [again, , b] = await opened(['a', 'b']);
    expect([again, b.info.model]).toEqual([changed, join(root, 'runs', 'b', 'model')]);
    await opened(['a']);
    expect(b.state().state).toBe('closed');
    await captioners.close();
    expect(changed.state().state).toBe('closed');
  });

  it('are not taken from a picture that is being described', async () => {
    const captioners = openCaptioners(worker);
    const first = triedTexts(captioners, await tried(['a']), { bytes: picture });
    const second = triedTexts(captioners, await tried(['b']), { bytes: picture });
    expect(await Promise.all([all(first), all(second)])).toEqual([2, 2]);
    await captioners.close();
  });

  it('have a place for four pictures, and for others when one of them is left', async () => {
    const captioners = openCaptioners(worker);
    const models = await tried(['a']);
    const four = [1, 2, 3, 4].map(() => triedTexts(captioners, models, { bytes: picture }));
    const fifth = triedTexts(captioners, models, { bytes: picture });
    await expect(all(fifth)).rejects.toMatchObject({ status: 429 });
    await four[0].cancel();
    expect(await all(triedTexts(captioners, models, { bytes: picture }))).toBe(2);
    await captioners.close();
  });

  it('that cannot be loaded are loaded again for the next picture', async () => {
    const captioners = openCaptioners(worker);
    const [base] = await tried(['a']);
    const asked = { bytes: picture };
    await expect(all(triedTexts(captioners, [{ ...base, model: join(root, 'no') }], asked))).rejects.toThrow(
      'no such',
    );
    expect(await all(triedTexts(captioners, [base], asked))).toBe(1);
    await captioners.close();
  });
});

it('tokens are put together to words, whose maps are the sums of theirs', () => {
  const token = (text: string, probability: number, attention_map?: number[]) => ({
    ...{ id: 0, text, probability },
    attention_map,
  });
  expect(wordsOf([token('a', 0.5), token('', 1), token(' re', 0.5), token('d', 0.5), token(' ', 1)])).toEqual(
    [
      { text: 'a', probability: 0.5 },
      { text: 'red', probability: 0.25 },
    ],
  );
  expect(wordsOf([token('a', 1, [0, 2]), token('b', 1, [1, 2])])).toEqual([
    { text: 'ab', probability: 1, map: [0.25, 1] },
  ]);
});
