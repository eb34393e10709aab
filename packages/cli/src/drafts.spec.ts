/** `blip2 caption --draft`. */
import { rm } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cli, IMAGE, TINY, tinyData } from '../spec/testing';

describe('caption --draft', () => {
  let root: string;
  beforeAll(async () => void (root = await tinyData()));
  afterAll(() => rm(root, { recursive: true }));
  const caption = (...args: string[]) => cli(['caption', IMAGE, '--model', TINY, '--json', ...args]);

  it('writes the captions that it writes without', async () => {
    const plain = await caption();
    const drafted = await caption('--draft', root);
    expect([drafted.code, drafted.out]).toEqual([0, plain.out]);
  });

  it('refuses beams, and data that is not there', async () => {
    const beams = await caption('--draft', root, '--num-beams', '2');
    expect([beams.code, beams.err]).toEqual([1, expect.stringContaining('draft is for greedy search')]);
    const missing = await caption('--draft', 'nowhere');
    expect([missing.code, missing.err]).toEqual([1, expect.stringContaining('nowhere')]);
  });
});
