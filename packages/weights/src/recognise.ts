/** What a checkpoint is when it is not the model that was expected: one sentence, with what to do. */
import { show } from './header';
import type { TensorEntry } from './header';

type Stored = ReadonlyMap<string, Pick<TensorEntry, 'shape'>>;

const SHARED = 'use a checkpoint in float32, float16 or bfloat16';

/** Ends of tensor names that only quantised weights have, by the program that writes them. */
const QUANTISED: readonly (readonly [RegExp, string])[] = [
  [/\.(qweight|qzeros|g_idx)$/, 'GPTQ or AWQ'],
  [/\.W_q$/, 'HQQ'],
  [/\.(weight_packed|weight_zero_point)$/, 'compressed-tensors'],
  [/\.(weight|input)_scale(_inv)?$/, '8-bit floats (fp8)'],
  [/\.weight\.(_data|_scale)$|\.(input|output)_scale$/, 'quanto'],
  [/\._weight_(qdata|scale)$|\.tensor_impl\./, 'torchao'],
  [/\.SCB$|\.quant_state\.|\.absmax$/, 'bitsandbytes'],
];

/** Beginnings of tensor names that wrappers add. */
const WRAPPERS: Readonly<Record<string, string>> = {
  '_orig_mod.': 'torch.compile',
  'module.': 'DataParallel or DistributedDataParallel',
  '_forward_module.': 'Lightning Fabric or DeepSpeed',
  'base_model.model.': 'PEFT',
};
/** Parts of names that FSDP, activation checkpointing and torch.compile put in. */
const INSIDE = /(^|\.)(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)(?=\.)/;

/** Parts of an adapter's names: LoRA and its variants, IA3, VeRA, OFT, prompts. */
const ADAPTER = /\.(lora_\w+|hada_\w+|lokr_\w+|ia3_\w+|vera_\w+|oft_\w+)(\.|$)|^prompt_embeddings$/;
const WRAPPED_LAYER = /\.base_layer\.|\.original_module\./;
const LAVIS = /^(visual_encoder|ln_vision|Qformer\.bert|opt_proj|t5_proj|opt_model|t5_model)\./;

/**
 * What stored tensors are that do not fit a model's table.
 * @param expected names of the model's tensors
 * @returns a sentence without the file's name; undefined if nothing is recognised
 */
export function recogniseTensors(stored: Stored, expected: readonly string[]): string | undefined {
  const names = [...stored.keys()];
  if (names.length === 0)
    return 'the file holds no tensors: it was saved before there were any; fetch or save it again';
  const hollow = [...stored.values()].filter(({ shape }) => shape.includes(0)).length;
  if (hollow * 2 > names.length)
    return (
      'the tensors are empty (shape [0]): DeepSpeed ZeRO-3 kept their values in its own files; ' +
      "run the checkpoint's zero_to_fp32.py in Python, and use what it writes"
    );
  return (
    quantised(names) ?? peft(names) ?? foreign(names) ?? wrapped(stored, expected) ?? part(stored, expected)
  );
}

function quantised(names: readonly string[]): string | undefined {
  for (const [pattern, program] of QUANTISED) {
    const name = names.find((one) => pattern.test(one));
    if (name)
      return `the weights are quantised by ${program} (${show(name)}), which is not supported: ${SHARED}`;
  }
  return undefined;
}

function peft(names: readonly string[]): string | undefined {
  const lora = names.find((name) => ADAPTER.test(name));
  const layer = names.find((name) => WRAPPED_LAYER.test(name));
  if (layer)
    return (
      `these are the tensors of a model that PEFT wraps (${show(layer)}), saved whole: pass the original model as --model and ` +
      'the folder with adapter_config.json as --adapter, or save model.merge_and_unload() in Python'
    );
  if (!lora) return undefined;
  return `this is an adapter, not a model (${show(lora)}): pass its folder as --adapter, and the model it was made for as --model`;
}

function foreign(names: readonly string[]): string | undefined {
  const flat = names.find((name) => /(^|\.)_?flat_param/.test(name));
  if (flat)
    return `these are flattened shards of FSDP (${show(flat)}): in Python, save with FULL_STATE_DICT, or join them by accelerate merge-weights`;
  const lavis = names.filter((name) => LAVIS.test(name));
  if (lavis.length * 2 <= names.length) return undefined;
  return `the tensors have LAVIS's names (${show(lavis[0])}): convert its .pth file by blip2 import-lavis`;
}

/** The expected names behind a common beginning, or with parts of wrappers between. */
function wrapped(stored: Stored, expected: readonly string[]): string | undefined {
  const plain = new Map(
    [...stored.keys()].map((name) => [name.replaceAll(new RegExp(INSIDE, 'g'), '').replace(/^\./, ''), name]),
  );
  const prefix = prefixOf([...plain.keys()], expected);
  if (prefix === undefined) return undefined;
  const inside = [...stored.keys()].find((name) => INSIDE.test(name));
  const inner = inside?.match(INSIDE)?.[0].replace(/^\./, '');
  const name = inside ?? plain.get(prefix + expected.find((one) => plain.has(prefix + one))!)!;
  if (prefix === '' && !inner) return undefined;
  const begin = inner && prefix === '' ? `"${inner}." in their names` : `${show(prefix)} before their names`;
  const by = WRAPPERS[inner ? `${inner}.` : prefix] ?? (inner ? 'FSDP' : undefined);
  return (
    `the tensors have ${begin} (${show(name)}), which ${by ?? 'a wrapper'} adds: ` +
    'in Python, save the model that is inside it by save_pretrained'
  );
}

/** What stands before most of the expected names; undefined if less than half of them are there. */
function prefixOf(names: readonly string[], expected: readonly string[]): string | undefined {
  const all = new Set(names);
  for (const probe of expected.slice(0, 4)) {
    const found = names.filter((name) => name === probe || name.endsWith(`.${probe}`));
    for (const name of found.slice(0, 4)) {
      const prefix = name.slice(0, name.length - probe.length);
      if (expected.filter((one) => all.has(prefix + one)).length * 2 > expected.length) return prefix;
    }
  }
  return undefined;
}

/** Smaller groups, such as one projection, are listed as missing tensors. */
const LEAST_GROUP = 5;

/** One or several parts of the model, under their names in it or saved on their own. */
function part(stored: Stored, expected: readonly string[]): string | undefined {
  const known = new Set(expected);
  const groups = new Map<string, number>();
  for (const name of expected) groups.set(firstOf(name), (groups.get(firstOf(name)) ?? 0) + 1);
  const names = [...stored.keys()];
  const whole = 'use the checkpoint of the whole model';
  for (const group of groups.keys()) {
    const own = names.filter((name) => known.has(`${group}.${name}`)).length;
    if (own * 2 > names.length) return `these are the tensors of "${group}" alone: ${whole}`;
  }
  const there = new Set(names.filter((name) => known.has(name)).map(firstOf));
  const absent = [...groups].filter(([group]) => !there.has(group));
  if (there.size === 0 || absent.every(([, size]) => size < LEAST_GROUP)) return undefined;
  const quote = (list: Iterable<string>) => [...list].map((group) => show(group)).join(', ');
  return `this is a part of a model: it has ${quote(there)}, and nothing of ${quote(absent.map(([group]) => group))}: ${whole}`;
}

const firstOf = (name: string) => name.split('.', 1)[0]!;
