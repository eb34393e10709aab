/** A captioner and servers for specs, with the sources as its worker. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { createCaptioner } from '@blip2/captioner';
import type { Captioner, CaptionerOptions } from '@blip2/captioner';
import { bundle } from '../../../tsup.config';

const fixtures = fileURLToPath(new URL('../../blip2/fixtures/', import.meta.url));
export const ADAPTER = `${fixtures}tiny-adapter`;
export const PICTURE = new Uint8Array(await readFile(`${fixtures}images/red.png`));
export const DATA_URL = `data:image/png;base64,${Buffer.from(PICTURE).toString('base64')}`;

let program: Promise<string> | undefined;

export async function openCaptioner(options: Partial<CaptionerOptions> = {}): Promise<Captioner> {
  program ??= bundle(new URL('../../captioner/src/worker.ts', import.meta.url));
  const worker = pathToFileURL(await program);
  return createCaptioner({ model: `${fixtures}tiny`, backend: 'cpu', worker, ...options });
}

/** A chat about the picture, with the given fields. */
export const chatBody = (more: object = {}, question = 'what is it ?') => ({
  model: 'tiny',
  messages: [
    {
      role: 'user',
      content: [
        { type: 'text', text: question },
        { type: 'image_url', image_url: { url: DATA_URL } },
      ],
    },
  ],
  ...more,
});

export const json = (body: unknown, headers: Record<string, string> = {}): RequestInit => ({
  method: 'POST',
  headers: { 'content-type': 'application/json', ...headers },
  body: JSON.stringify(body),
});
