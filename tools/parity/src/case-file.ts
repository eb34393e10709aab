/** Case folders on disk. README.md defines the format, make_cases.py writes it. */
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { GenerateOptions } from '@blip2/blip2';
import { tensor } from '@blip2/nn';
import type { Tensor } from '@blip2/nn';
import { openWeights } from '@blip2/weights/node';

/** A case folder cannot be read; the message has the file. */
export class CaseError extends Error {
  override name = 'CaseError';
}

/** One expected tensor. `noise` is the reference's own float32 error; errors are relative to the largest value, or to `scale`. */
export interface Expected {
  tensor: string;
  tolerance: number;
  noise: number;
  scale?: number;
}

export interface TokensJson {
  shape: [number, number];
  input_ids: number[];
  attention_mask: number[];
  labels?: number[];
  /** What a Q-Former that reads texts gets of each row. */
  instructions?: TokensJson;
}

/** One batch: tokens and its images, from a tensor or from image files. */
export interface InputsJson extends TokensJson {
  pixel_values?: string;
  images?: string[];
  size?: { height: number; width: number };
  interpolate_pos_encoding?: boolean;
}

type Quantities = Record<string, Expected>;
interface Named {
  name: string;
}
export type Check = Named &
  (
    | { rung: 'pixels'; image: string; expect: Quantities }
    | { rung: 'tokens'; texts: string[]; ids: number[][]; decoded: string[] }
    | { rung: 'prompts'; texts: string[]; rows: TokensJson }
    | { rung: 'examples'; prompts: string[]; targets: string[]; rows: TokensJson }
    | { rung: 'features'; inputs: string; every?: number; expect: Quantities }
    | { rung: 'states' | 'logits' | 'loss' | 'gradients' | 'merged'; inputs: string; expect: Quantities }
    | { rung: 'generate'; inputs: string; options: GenerateOptions; ids: number[][] }
    | { rung: 'distribution'; inputs: string; options: GenerateOptions; kept: number[]; expect: Quantities }
    | {
        rung: 'trajectory';
        batches: string[];
        trains: string[];
        adapter?: string;
        optimizer: TrajectoryOptions;
        expect: Quantities;
      }
    | { rung: 'refused'; inputs: string; without?: 'interpolate_pos_encoding'; error: string }
  );
export type CheckOf<R extends Check['rung']> = Extract<Check, { rung: R }>;

export interface TrajectoryOptions {
  learning_rates: number[];
  adam_beta1: number;
  adam_beta2: number;
  adam_epsilon: number;
  weight_decay: number;
  max_grad_norm: number;
}

export interface Case {
  name: string;
  about: string;
  /** Absolute paths. */
  folder: string;
  model: string;
  adapter?: string;
  inputs: Record<string, InputsJson>;
  checks: Check[];
  /** Values and shape of a tensor of case.safetensors. @throws CaseError if it does not exist */
  values(name: string): { values: Float32Array; shape: number[] };
}

/** The case folders in a folder, sorted, or the folder itself if it is one. @throws CaseError if there is none */
export async function listCases(dir: string): Promise<string[]> {
  if (existsSync(join(dir, 'case.json'))) return [resolve(dir)];
  const names = existsSync(dir) ? await readdir(dir) : [];
  const folders = names.filter((name) => existsSync(join(dir, name, 'case.json'))).sort();
  if (folders.length === 0)
    throw new CaseError(`${dir}: expected a case folder (with case.json) or a folder of them, found none`);
  return folders.map((name) => resolve(dir, name));
}

/** Reads a case folder with all its tensors. @throws CaseError */
export async function readCase(folder: string): Promise<Case> {
  const file = join(folder, 'case.json');
  const json = await readFile(file, 'utf8').then(
    (text) => JSON.parse(text) as Omit<Case, 'values'> & { format: number },
    (error: Error) => {
      throw new CaseError(`${file}: ${error.message}`);
    },
  );
  if (json.format !== 1)
    throw new CaseError(`${file}: format: expected 1, found ${JSON.stringify(json.format)}`);
  if (typeof json.model !== 'string' || !Array.isArray(json.checks) || json.checks.length === 0)
    throw new CaseError(`${file}: expected model, a folder, and checks, a list that is not empty`);
  const tensors = await readTensors(join(folder, 'case.safetensors'));
  return {
    ...json,
    name: folder.split(/[\\/]/).at(-1)!,
    folder,
    model: resolve(folder, json.model),
    adapter: json.adapter && resolve(folder, json.adapter),
    inputs: json.inputs ?? {},
    values: (name) => {
      const found = tensors.get(name);
      if (found) return found;
      throw new CaseError(`${folder}/case.safetensors: expected a tensor ${name}, found none`);
    },
  };
}

/** The case with this tolerance where its own is smaller, for a precision that rounds. */
export function atLeast(one: Case, tolerance: number): Case {
  const raised = (expect: Quantities): Quantities =>
    Object.fromEntries(
      Object.entries(expect).map(([name, e]) => [
        name,
        { ...e, tolerance: Math.max(e.tolerance, tolerance) },
      ]),
    );
  const checks = one.checks.map((check) =>
    'expect' in check ? { ...check, expect: raised(check.expect) } : check,
  );
  return { ...one, checks };
}

async function readTensors(file: string): Promise<Map<string, { values: Float32Array; shape: number[] }>> {
  const tensors = new Map<string, { values: Float32Array; shape: number[] }>();
  if (!existsSync(file)) return tensors;
  const reader = await openWeights(file);
  for (const [name, { shape }] of reader.entries)
    tensors.set(name, { shape, values: await reader.readFloat32(name) });
  await reader.close();
  return tensors;
}

/** A tensor of a case on the backend. */
export function caseTensor<T extends Tensor>(of: Case, name: string): T {
  const { values, shape } = of.values(name);
  return tensor<T>(values, shape);
}
