/** The program that browser.spec.ts bundles: every root that must run in a browser, and a caption from bytes in memory. */
import { forward, generate, loadModel } from '../src/index';
import type { GenerateOptions, TokenBatch } from '../src/index';
import { cpuBackend, startBackend, tensor } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { applyAdapter, parseLoraConfig, readAdapter } from '@blip2/peft-lora';
import { readSafetensors } from '@blip2/weights';

export * as blip2 from '../src/index';
export * as nn from '@blip2/nn';
export * as optDecoder from '@blip2/opt-decoder';
export * as peftLora from '@blip2/peft-lora';
export * as qformer from '@blip2/qformer';
export * as t5LanguageModel from '@blip2/t5-language-model';
export * as visionEncoder from '@blip2/vision-encoder';
export * as weights from '@blip2/weights';

/** Plain arrays, because a typed array of another realm fails `instanceof`. */
export interface BrowserInput {
  model: { config: string; weights: number[] };
  adapter: { config: string; weights: number[] };
  pixels: { values: number[]; shape: number[] };
  tokens: { input_ids: number[]; attention_mask: number[]; shape: [number, number] };
  options: GenerateOptions;
}

export interface BrowserResult {
  logits: number[];
  ids: number[][];
  adapterIds: number[][];
}

/** Stop strings that never occur. */
const stopping = {
  stop_strings: ['no such text'],
  tokenizer: { decode: (ids: readonly number[]) => ids.join() },
};

export async function run({ model, adapter, pixels, tokens, options }: BrowserInput): Promise<BrowserResult> {
  await startBackend(cpuBackend);
  const reader = await readSafetensors(Uint8Array.from(model.weights));
  const base = await loadModel({ config: JSON.parse(model.config), weights: reader });
  const pixel_values = tensor<Tensor4D>(Float32Array.from(pixels.values), pixels.shape);
  const batch: TokenBatch = {
    shape: tokens.shape,
    input_ids: Int32Array.from(tokens.input_ids),
    attention_mask: Int32Array.from(tokens.attention_mask),
  };
  const lora = await readAdapter({
    config: parseLoraConfig(JSON.parse(adapter.config)),
    weights: await readSafetensors(Uint8Array.from(adapter.weights)),
  });
  const adapted = { ...base, params: applyAdapter(base.params, lora) };
  return {
    logits: [...(await forward(base, { pixel_values }, batch).logits.data())],
    ids: await generate(base, { pixel_values }, batch, { ...options, ...stopping }),
    adapterIds: await generate(adapted, { pixel_values }, batch, options),
  };
}
