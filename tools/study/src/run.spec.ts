import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { cellsLeft, nameOf } from './grid';
import { readResults, runLeft } from './run';

/** A program that answers each cell at once, and fails for rates that its environment names. */
const PROGRAM = `process.on('message', (cell) => {
  if (String(cell.rate) === process.env.FAIL) process.send({ error: 'no such rate' });
  else process.send({ result: { ...cell, steps: 1, scores: { exact: 0, loss: 1, cider_d: 1 - Math.abs(cell.rate - 0.001) }, seconds: 1, train_seconds: 1 } });
});`;

let work: string;
let program: string;
const said: string[] = [];
const options = (only: string) => ({
  ...{ work, program, only, processes: 2, make: () => Promise.resolve() },
  say: (text: string) => void said.push(text),
});

beforeEach(async () => {
  work = await mkdtemp(join(tmpdir(), 'blip2-study-'));
  program = join(work, 'program.mjs');
  said.length = 0;
  await writeFile(program, PROGRAM);
});

describe('a run of the study', () => {
  it('runs what is asked for, each cell once, and says what is left', async () => {
    await runLeft(options('emoji, lora, 200'));
    const results = await readResults(work);
    expect(results.filter(({ split }) => split === 'validation')).toHaveLength(3);
    expect(results.filter(({ split, rate }) => split === 'test' && rate === 0.001)).toHaveLength(3);
    expect(new Set(results.map(nameOf)).size).toBe(6);
    expect(said.at(-1)).toMatch(/^\d+ runs left, about \d+ minutes of one core$/);
  });

  it('continues where it stopped, without the half line of a kill', async () => {
    await runLeft(options('emoji, lora, 200, seed 0, 0.001, validation'));
    const file = join(work, 'results.jsonl');
    const before = await readFile(file, 'utf8');
    await writeFile(file, `${before}{"data":"emo`);
    await runLeft(options('emoji, lora, 200, seed 0'));
    const results = await readResults(work);
    expect(
      results.map(nameOf).filter((name) => name === 'emoji, lora, 200, seed 0, 0.001, validation'),
    ).toHaveLength(1);
    expect(results).toHaveLength(4);
    expect(cellsLeft(results).map(nameOf)).toContain('emoji, lora, 200, seed 1, 0.001, test');
  });

  it('ends with the error of a cell and keeps the others', async () => {
    process.env.FAIL = '0.003';
    try {
      await expect(runLeft({ ...options('emoji, lora, 200'), processes: 1 })).rejects.toThrow(
        'emoji, lora, 200, seed 0, 0.003, validation: no such rate',
      );
    } finally {
      delete process.env.FAIL;
    }
    expect(await readResults(work)).toHaveLength(2);
  });
});
