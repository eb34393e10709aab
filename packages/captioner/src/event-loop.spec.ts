/** How long the caller's thread could not answer anything else; printed, because times depend on the machine. */
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import sharp from 'sharp';
import { beforeAll, expect, it } from 'vitest';
import { EMOJI, open } from '../spec/testing';
import type { Captioner } from './index';

/** A photograph of 12 megapixels, some 5 MB as JPEG. */
let photograph: Buffer;
beforeAll(async () => {
  const noise = { type: 'gaussian', mean: 128, sigma: 30 } as const;
  const create = { width: 4000, height: 3000, channels: 3, background: '#808080', noise } as const;
  photograph = await sharp({ create }).jpeg({ quality: 90 }).toBuffer();
});

interface Longest {
  /** ms until the thread could go on */
  wait: number;
  /** ms of it in which another thread had the core */
  core: number;
  /** ms of its own work at a time */
  work: number;
}

const longest = new Map<string, Longest>();

/** ms that this thread has worked, and waited for a core, where Linux counts them. */
function spent(): [work: number, core: number] {
  try {
    const [work, core] = readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'latin1').split(' ');
    return [Number(work) / 1e6, Number(core) / 1e6];
  } catch {
    return [NaN, NaN];
  }
}

/** Looks at the clock every millisecond while `work` goes on. */
async function measured<T>(what: string, work: () => Promise<T>): Promise<T> {
  const most: Longest = { wait: 0, core: 0, work: 0 };
  let isOn = true;
  const watch = (async () => {
    while (isOn) {
      const [time, [worked, waited]] = [performance.now(), spent()];
      await sleep(1);
      const wait = performance.now() - time - 1;
      const [workedNow, waitedNow] = spent();
      if (wait > most.wait) Object.assign(most, { wait, core: waitedNow - waited });
      most.work = Math.max(most.work, workedNow - worked);
    }
  })();
  const made = await work();
  isOn = false;
  await watch;
  longest.set(what, most);
  return made;
}

it('the longest wait of the caller while a model loads, writes, and starts again', async () => {
  const options = { max_new_tokens: 20, min_new_tokens: 20 };
  const captioner: Captioner = await measured('the model loads', () =>
    open({ model: EMOJI, backend: 'auto', precision: 'auto' }),
  );
  const path = join(tmpdir(), `captioner-${process.pid}.jpg`);
  await writeFile(path, photograph);
  const sources = { bytes: photograph, 'a Blob': new Blob([new Uint8Array(photograph)]), 'a path': path };
  for (const [kind, source] of Object.entries(sources)) {
    const texts = await measured(`8 requests of 12 megapixels, ${kind}`, () =>
      Promise.all(Array.from({ length: 8 }, () => captioner.caption(source, options))),
    );
    expect(new Set(texts.map(({ text }) => text)).size).toBe(1);
  }
  const pieces = await measured('8 streams', () =>
    Promise.all(
      Array.from({ length: 8 }, async () => {
        let count = 0;
        for await (const { text } of captioner.streamCaption(path, options)) count += text === '' ? 0 : 1;
        return count;
      }),
    ),
  );
  expect(Math.min(...pieces)).toBeGreaterThan(5);
  await measured('the worker crashes and starts again', async () => {
    await expect(captioner.caption(path, { prompt: 'crash' })).rejects.toMatchObject({
      name: 'WorkerCrashError',
    });
    await captioner.caption(path, options);
  });
  await captioner.close();
  const lines = [...longest].map(
    ([what, most]) =>
      [most.wait, most.core, most.work].map((ms) => ms.toFixed(1).padStart(8)).join('') + `  ${what}`,
  );
  process.stdout.write(
    `longest wait of the caller's thread, of it for a core, longest work of its own, ms\n${lines.join('\n')}\n`,
  );
  expect(longest.size).toBe(6);
}, 240_000);
