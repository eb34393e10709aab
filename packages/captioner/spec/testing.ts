/** Captioners of specs: with the sources as their worker, and with small models. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { bundle } from '../../../tsup.config';
import { createCaptioner } from '../src/index';
import type { Captioner, CaptionerOptions } from '../src/index';

const fixtures = fileURLToPath(new URL('../../blip2/fixtures/', import.meta.url));

export const TINY = `${fixtures}tiny`;
export const TINY_T5 = `${fixtures}tiny-t5`;
export const INSTRUCT = `${fixtures}tiny-instructblip`;
export const ADAPTER = `${fixtures}tiny-adapter`;
export const EMOJI = fileURLToPath(new URL('../../../models/blip2-emoji-mini', import.meta.url));
const COLOURS = ['red', 'grey', 'blue-alpha'] as const;
export const PICTURES = COLOURS.map((name) => `${fixtures}images/${name}.png`);
export const BYTES = await Promise.all(PICTURES.map((path) => readFile(path)));

let program: Promise<string> | undefined;

/** The path of the worker, made of the sources as they are. */
export function workerProgram(): Promise<string> {
  return (program ??= bundle(new URL('./worker-program.ts', import.meta.url)));
}

export async function open(options: Partial<CaptionerOptions> = {}): Promise<Captioner> {
  const worker = pathToFileURL(await workerProgram());
  return createCaptioner({ model: TINY, backend: 'cpu', worker, ...options });
}
