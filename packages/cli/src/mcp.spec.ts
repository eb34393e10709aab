/** `blip2 mcp`, with the client of the protocol's own SDK, as an assistant starts it. */
import { copyFile, mkdir, readdir, realpath, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundle } from '../../../tsup.config';
import { IMAGE, TINY, tinyData } from '../spec/testing';
import { bounded } from './mcp/bounded';

/** Runs of a tiny model, on a machine with other work. */
const LONG = 240_000;

let root: string;
let client: Client;
let transport: StdioClientTransport;
/** What was on stdout beside the protocol. */
const unwanted: string[] = [];

beforeAll(async () => {
  root = await realpath(await tinyData(4));
  const bin = await bundle(new URL('./bin.ts', import.meta.url));
  const worker = await bundle(new URL('../../captioner/src/worker.ts', import.meta.url));
  await copyFile(worker, join(dirname(bin), 'worker.js')); // where the bundled captioner looks for it
  transport = new StdioClientTransport({
    command: process.execPath,
    args: [bin, 'mcp', '--folder', root, TINY, '--runs', join(root, 'runs')],
    cwd: root,
    stderr: 'pipe',
  });
  client = new Client({ name: 'spec', version: '1.0.0' });
  await client.connect(transport);
  client.onerror = ({ message }) => unwanted.push(message);
}, LONG);
afterAll(() => client.close());

interface Called {
  isError?: boolean;
  content: { type: string; text: string }[];
}

/** The JSON that a tool returns, or the text of its error. */
async function call(name: string, args: Record<string, unknown> = {}): Promise<Record<string, unknown>> {
  const { isError, content } = (await client.callTool(
    { name, arguments: args },
    { timeout: LONG },
  )) as Called;
  return isError ? { error: content[0].text } : (JSON.parse(content[0].text) as Record<string, unknown>);
}

const settings = { max_steps: 20, learning_rate: 0.02, backend: 'cpu', preset: 'lora' };

async function until(name: string, ...states: string[]): Promise<Record<string, unknown>> {
  for (;;) {
    const status = await call('fit_status', { name });
    if (states.includes(status.state as string)) return status;
    await sleep(200);
  }
}

describe('blip2 mcp', () => {
  it('lists its tools, with the schemas of their arguments', async () => {
    const { tools } = await client.listTools();
    const names = ['data_check', 'plan', 'fit_start', 'fit_status', 'fit_stop', 'fit_resume'];
    expect(tools.map(({ name }) => name)).toEqual([...names, 'caption', 'answer']);
    expect(tools.find(({ name }) => name === 'plan')!.inputSchema.required).toEqual(['model', 'data']);
    expect(client.getInstructions()).toContain('Order of work');
  });

  it(
    'checks data, and sends progress',
    async () => {
      const lines: (string | undefined)[] = [];
      const onprogress = ({ message }: { message?: string }) => void lines.push(message);
      const { content } = (await client.callTool(
        { name: 'data_check', arguments: { path: '.', model: TINY } },
        { onprogress, timeout: LONG },
      )) as Called;
      expect(JSON.parse(content[0].text)).toMatchObject({ usable: true, splits: [{ rows: 12 }, {}, {}] });
      expect(lines).toContain('9 of 9 images');
    },
    LONG,
  );

  it(
    'plans',
    async () => {
      const plan = await call('plan', { model: TINY, data: '.', settings, memory: '16GB' });
      expect(plan).toMatchObject({ presets: [{ preset: 'lora' }], facts: { data: { rows: 12 } } });
    },
    LONG,
  );

  it(
    'starts runs, shows their state and verdict, stops and continues them',
    async () => {
      const named = { model: TINY, data: '.' };
      expect(await call('fit_start', { name: 'a', ...named, settings })).toEqual({
        name: 'a',
        state: 'running',
      });
      expect(await until('a', 'finished', 'failed')).toMatchObject({
        ...{ state: 'finished', step: 20, report: join(root, 'runs', 'a', 'report.html') },
        verdict: { sentences: expect.any(Array) as string[] },
      });
      const long = { ...settings, max_steps: 20_000, logging_steps: 1 };
      await call('fit_start', { name: 'b', ...named, settings: long });
      for (let step = 0; !(step > 0); await sleep(200))
        step = ((await call('fit_status', { name: 'b' })).step as number | undefined) ?? 0;
      expect(await call('fit_stop', { name: 'b' })).toMatchObject({ state: 'stopping' });
      const stopped = await until('b', 'stopped', 'failed');
      expect(stopped).toMatchObject({ state: 'stopped', metrics: expect.any(Array) as unknown });
      expect(await call('fit_resume', { name: 'b' })).toMatchObject({ state: 'running' });
      for (let step = 0; !(step > (stopped.step as number)); await sleep(200))
        step = (await call('fit_status', { name: 'b' })).step as number;
      await call('fit_stop', { name: 'b' });
      await until('b', 'stopped');
      const { runs } = (await call('fit_status')) as { runs: { name: string; state: string }[] };
      expect(runs.map(({ name, state }) => [name, state])).toEqual([
        ['b', 'stopped'],
        ['a', 'finished'],
      ]);
    },
    LONG,
  );

  it(
    'captions pictures and answers questions with what a run made, and names those that it cannot read',
    async () => {
      await writeFile(join(root, 'broken.png'), 'no picture');
      await symlink(IMAGE, join(root, 'linked.png'));
      const images = ['test/red.png', 'broken.png', 'gone.png', 'linked.png', '../x.png', '/etc/passwd'];
      const { results } = (await call('caption', { run: 'a', images, max_new_tokens: 5 })) as {
        results: { text?: string; confidence?: number; error?: string }[];
      };
      expect(results[0]).toEqual({
        image: 'test/red.png',
        text: expect.any(String) as string,
        confidence: expect.any(Number) as number,
      });
      expect(results[2].error).toBe('gone.png: there is no such file or folder');
      for (const { error } of results.slice(3)) expect(error).toContain('is outside of the folders');
      expect(results[1].error).toBeDefined();
      const asked = { model: TINY, images: ['test/red.png'], question: 'what is it ?', max_new_tokens: 3 };
      expect(await call('answer', asked)).toMatchObject({ results: [{ confidence: expect.any(Number) }] });
    },
    LONG,
  );

  it(
    'refuses what is outside of its folders, what it does not know, and what does not fit together',
    async () => {
      await mkdir(join(root, 'own'), { recursive: true });
      await symlink('/etc', join(root, 'own', 'link'));
      const model = TINY;
      const cases: [string, Record<string, unknown>, string][] = [
        ['data_check', { path: dirname(root) }, 'outside of the folders'],
        ['data_check', { path: 'own/link' }, 'outside of the folders'],
        ['data_check', { path: 'gone' }, 'there is no such file'],
        ['data_check', {}, 'path'],
        ['plan', { model, data: '/etc' }, 'outside of the folders'],
        ['plan', { model, data: '.', settings: { output_dir: '/tmp/x' } }, 'no setting'],
        ['fit_start', { name: '../x', model, data: '.' }, 'is no name of a run'],
        ['fit_start', { name: 'x', model, data: '.', settings: { seed: '--help' } }, 'seed: expected'],
        ['fit_status', { name: 'gone' }, 'there is no such file'],
        ['fit_status', { name: '..' }, 'is no name of a run'],
        ['fit_stop', { name: 'gone' }, 'does not run'],
        ['fit_resume', { name: 'gone' }, 'there is no such'],
        ['caption', { images: ['test/red.png'] }, 'either run, or model'],
        ['caption', { model, run: 'a', images: ['test/red.png'] }, 'either run, or model'],
        ['caption', { model: '/etc', images: ['test/red.png'] }, 'outside of the folders'],
        ['caption', { model: 'own', images: ['test/red.png'] }, 'config.json'],
        ['caption', { model, images: [] }, 'images'],
      ];
      for (const [name, args, message] of cases)
        expect(await call(name, args), `${name} ${JSON.stringify(args)}`).toEqual({
          error: expect.stringContaining(message) as string,
        });
      expect(unwanted).toEqual([]);
    },
    LONG,
  );

  it(
    'ends with its client, and its runs save a checkpoint',
    async () => {
      const long = { ...settings, max_steps: 20_000, logging_steps: 1, save_steps: 20_000 };
      await call('fit_start', { name: 'c', model: TINY, data: '.', settings: long });
      for (let step = 0; !(step > 0); await sleep(200))
        step = ((await call('fit_status', { name: 'c' })).step as number | undefined) ?? 0;
      const saved = async () => {
        const names = await readdir(join(root, 'runs', 'c', 'checkpoints')).catch(() => []);
        return names.filter((name) => /^step-\d+$/.test(name)); // others are not complete
      };
      expect(await saved()).toEqual([]);
      const { pid } = transport;
      const isRunning = () => {
        try {
          return process.kill(pid!, 0);
        } catch {
          return false;
        }
      };
      expect(isRunning()).toBe(true);
      await client.close();
      for (let i = 0; i < 100 && isRunning(); i++) await sleep(100);
      expect(isRunning()).toBe(false);
      for (let i = 0; i < 300 && (await saved()).length === 0; i++) await sleep(100);
      expect(await saved()).toHaveLength(1);
    },
    LONG,
  );
});

it('cuts lists and texts, and counts what is left out', () => {
  expect(bounded({ a: Array.from({ length: 30 }, (_, i) => i), b: 'x'.repeat(3000), c: null })).toEqual({
    a: [...Array.from({ length: 20 }, (_, i) => i), '… and 10 more'],
    b: `${'x'.repeat(2000)} … and 1000 more characters`,
    c: null,
  });
});
