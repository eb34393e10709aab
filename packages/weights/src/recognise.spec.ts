/** Checkpoints that are something else than the model: one sentence each, by tensor names of the programs that write them. */
import { describe, expect, it } from 'vitest';
import type { DType } from './dtype';
import type { WeightsError } from './errors';
import type { TensorEntry } from './header';
import { checkTable } from './table';
import type { WeightTable } from './table';

const LAYERS = Array.from({ length: 3 }, (_, i) => i);
const table: WeightTable = [
  ['query_tokens', [1, 4, 8]],
  ...['vision_model', 'qformer.encoder', 'language_model.decoder'].flatMap((part) =>
    LAYERS.flatMap((i): WeightTable => [
      [`${part}.layers.${i}.q_proj.weight`, [8, 8]],
      [`${part}.layers.${i}.q_proj.bias`, [8]],
    ]),
  ),
  ['language_projection.weight', [8, 8]],
];

const stored = (names: Iterable<string>, shape?: number[], dtype: DType = 'F32') => ({
  path: 'model',
  entries: new Map(
    [...names].map((name): [string, TensorEntry] => {
      const own = shape ?? table.find(([other]) => other === name)?.[1] ?? [8];
      return [name, { name, dtype, shape: own, file: 'model/model.safetensors', begin: 0, end: 0 }];
    }),
  ),
});
const names = table.map(([name]) => name);

function message(of: ReturnType<typeof stored>): string {
  try {
    checkTable(of, table);
  } catch (error) {
    return (error as WeightsError).message;
  }
  throw new Error('expected an error');
}

const lora = (name: string) => name.replace('.weight', '.lora_A.default.weight');
const layer = (name: string) => name.replace(/\.(weight|bias)$/, '.base_layer.$1');
const own = (part: string) => names.filter((name) => name.startsWith(`${part}.`));

describe('a checkpoint that is not the model is recognised in one sentence', () => {
  it.each<[string, string[], RegExp]>([
    [
      'torch.compile',
      names.map((n) => `_orig_mod.${n}`),
      /"_orig_mod\." .*torch\.compile adds.*save_pretrained/,
    ],
    ['DDP', names.map((n) => `module.${n}`), /"module\." before.*DistributedDataParallel adds/],
    ['a wrapper of a training program', names.map((n) => `model.${n}`), /"model\." before their names/],
    ['two wrappers', names.map((n) => `module.model.${n}`), /"module\.model\." before their names/],
    [
      'FSDP around each layer',
      names.map((n) => n.replace(/layers\.(\d)/, 'layers.$1._fsdp_wrapped_module')),
      /"_fsdp_wrapped_module\." in their names.*FSDP adds/,
    ],
    ['flat parameters of FSDP', ['_flat_param', 'a._flat_param'], /flattened shards of FSDP/],
    [
      'a PEFT model saved whole',
      [...names.map((n) => `base_model.model.${layer(n)}`), `base_model.model.${lora(names[1]!)}`],
      /a model that PEFT wraps.*--model.*--adapter/,
    ],
    [
      'an adapter',
      own('vision_model').map((n) => `base_model.model.${lora(n)}`),
      /an adapter, not a model.*--adapter/,
    ],
    ['prompt tuning', ['prompt_embeddings'], /an adapter, not a model/],
    ['GPTQ', ['qweight', 'qzeros', 'scales', 'g_idx'].map((e) => `a.${e}`), /quantised by GPTQ or AWQ/],
    ['HQQ', ['a.W_q', 'a.meta'], /quantised by HQQ/],
    ['compressed-tensors', ['a.weight_packed', 'a.weight_scale'], /quantised by compressed-tensors/],
    ['fp8', [...names, 'language_model.layers.0.q_proj.weight_scale_inv'], /quantised by 8-bit floats/],
    ['LAVIS', ['Qformer.bert.a', 'opt_proj.weight', 'query_tokens', 'ln_vision.bias'], /import-lavis/],
    ['the language model alone', own('language_model').map((n) => n.slice(15)), /of "language_model" alone/],
    [
      'the model without its language model',
      names.filter((n) => !n.startsWith('language_model')),
      /has "query_tokens", "vision_model", .*nothing of "language_model"/,
    ],
    ['no tensors', [], /holds no tensors/],
  ])('%s', (_, stands, expected) => {
    const text = message(stored(stands));
    expect(text).toMatch(expected);
    expect(text).not.toContain('\n');
  });

  it('empty tensors of ZeRO-3', () => {
    expect(message(stored(names, [0]))).toMatch(/empty \(shape \[0\]\).*zero_to_fp32\.py/);
  });

  it('whole numbers in place of weights, although names and shapes fit', () => {
    expect(message(stored(names, undefined, 'I8'))).toMatch(
      /20 weights are whole numbers \(I8\), such as "query_tokens".*float32, float16 or bfloat16$/,
    );
  });

  it('a model with a few wrong tensors is still listed', () => {
    expect(message(stored([...names.slice(2), 'opt_proj.weight']))).toMatch(/2 missing:\n.*query_tokens/);
  });
});
