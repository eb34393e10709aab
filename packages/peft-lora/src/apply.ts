/** Attaches an adapter to a tree. */
import { flatten, replaceLeaves, tensor } from '@blip2/nn';
import type { LoraPart, Tensor, Tensor1D, Tensor2D, Tie } from '@blip2/nn';
import { show } from '@blip2/weights';
import { AdapterError, list } from './errors';
import type { Adapter, HostTensor, LoraMatrices } from './adapter';
import { onWholeModel } from './part';
import { refuseSecondAdapter, shapesOf, variableOf, withParts } from './lora';
import { matchTargets } from './match';
import type { LoraTarget } from './match';
import { isTied, untied } from './ties';
import { liesIn, trainedBiases } from './trained';

/**
 * A new tree with the adapter: LoRA on its modules, and its trained tensors instead of the base's. Other tensors are shared.
 * @param options.trainable makes the adapter's tensors Variables, to continue training; frozen tensors by default
 * @param options.ties the model's tied tensors, which the adapter may untie
 * @throws AdapterError that lists every missing, unexpected and misshapen tensor
 */
export function applyAdapter<T extends object>(
  tree: T,
  given: Adapter,
  options: { trainable?: boolean; ties?: readonly Tie[] } = {},
): T {
  refuseSecondAdapter(tree);
  const { ties = [] } = options;
  const whole = onWholeModel(given, shapesOf(tree));
  const base = untied(tree, whole.config, ties);
  const adapter = { ...whole, tensors: withoutAliases(whole.tensors, flatten(base), ties) };
  const targets = matchTargets(adapter.config, shapesOf(base), false);
  const problems = misfits(adapter, targets, flatten(base));
  if (problems.length > 0) {
    const hints = hintsOf(adapter, flatten(base)).map((hint) => `\n${hint}`);
    throw new AdapterError(
      `${adapter.where}: the adapter does not fit the model:\n${list(problems)}${hints.join('')}`,
      problems,
    );
  }
  const make: Make = ({ data, shape }, name) =>
    options.trainable ? variableOf(data, shape, name) : tensor(data, shape);
  const parts = targets.map(({ module, scaling }): [string, LoraPart] => [
    module,
    partOf(module, adapter.lora.get(module)!, scaling, adapter.config.lora_dropout, make),
  ]);
  // The stored weight of an adapted head belongs to the base and is not trained.
  const frozen = new Set(targets.map(({ module }) => `${module}.weight`));
  const replaced = replaceLeaves(base, (name, leaf) => {
    const value = adapter.tensors.get(name);
    if (!value) return leaf;
    return frozen.has(name) ? tensor(value.data, value.shape) : make(value, name);
  });
  return withParts(replaced, new Map(parts));
}

/** Two tied tensors are one in the tree. PEFT loads both into it, and the alias, lm_head, comes last. */
function withoutAliases(
  tensors: ReadonlyMap<string, HostTensor>,
  leaves: ReadonlyMap<string, Tensor>,
  ties: readonly Tie[],
): Map<string, HostTensor> {
  const own = new Map(tensors);
  for (const { tensor: name, alias } of ties.filter((tie) => isTied(tie, leaves) && tensors.has(tie.alias))) {
    own.set(name, tensors.get(alias)!);
    own.delete(alias);
  }
  return own;
}

/** What may be the cause. */
function hintsOf({ config, tensors, lora }: Adapter, leaves: ReadonlyMap<string, Tensor>): string[] {
  const hints: string[] = [];
  const all = [...tensors.values(), ...[...lora.values()].flatMap(({ A, B }) => [A, B])];
  if (all.length > 0 && all.every(({ shape }) => shape.includes(0)))
    hints.push(
      'Its tensors are empty: DeepSpeed ZeRO-3 saved it without gathering them; save it again in Python.',
    );
  for (const [name, { shape }] of tensors) {
    const rows = leaves.get(name)?.shape[0];
    if (!/\.(embed_tokens|lm_head|shared)\.weight$/.test(name) || rows === undefined || rows === shape[0])
      continue;
    hints.push(
      `It was made with a vocabulary of ${shape[0]} tokens, the model has ${rows}: in Python, resize the model's ` +
        `(resize_token_embeddings(${shape[0]})), merge the adapter, and save model and tokenizer.`,
    );
    break;
  }
  const made = config.base_model_name_or_path;
  if (made) hints.push(`The adapter was made for the base model ${show(made)}.`);
  return hints;
}

type Make = (value: HostTensor, name: string) => Tensor;

function partOf(
  module: string,
  { A, B, bias, magnitude }: LoraMatrices,
  scaling: number,
  dropout: number,
  make: Make,
): LoraPart {
  const lora_A = { weight: make(A, `${module}.lora_A`) as Tensor2D };
  const lora_B: LoraPart['lora_B'] = { weight: make(B, `${module}.lora_B`) as Tensor2D };
  if (bias) lora_B.bias = make(bias, `${module}.lora_B.bias`) as Tensor1D;
  const part: LoraPart = { lora_A, lora_B, scaling, dropout };
  if (magnitude) part.lora_magnitude_vector = make(magnitude, `${module}.lora_magnitude_vector`) as Tensor1D;
  return part;
}

/** Differences between adapter and model: missing and unexpected tensors and other shapes. */
function misfits(
  adapter: Adapter,
  targets: readonly LoraTarget[],
  leaves: ReadonlyMap<string, Tensor>,
): string[] {
  const problems: string[] = [];
  const expectShape = (name: string, { shape }: HostTensor, expected: readonly number[]) => {
    if (shape.join() !== expected.join())
      problems.push(`misshapen "${name}": expected [${expected.join(', ')}], found [${shape.join(', ')}]`);
  };
  for (const { module, r, in: width, out } of targets) {
    const pair = adapter.lora.get(module);
    if (!pair) problems.push(`missing LoRA of "${module}" (r ${r}, ${width} → ${out})`);
    else {
      expectShape(`${module}.lora_A.weight`, pair.A, [r, width]);
      expectShape(`${module}.lora_B.weight`, pair.B, [out, r]);
      if (pair.bias) expectShape(`${module}.lora_B.bias`, pair.bias, [out]);
      if (pair.magnitude) expectShape(`${module}.lora_magnitude_vector`, pair.magnitude, [out]);
    }
  }
  const known = new Set(targets.map(({ module }) => module));
  for (const module of adapter.lora.keys()) {
    if (!known.has(module))
      problems.push(
        `unexpected LoRA of "${module}": ${leaves.has(`${module}.weight`) ? 'not among target_modules' : 'the model has no such Linear'}`,
      );
  }
  for (const [name, value] of adapter.tensors) {
    const leaf = leaves.get(name);
    if (leaf) expectShape(name, value, leaf.shape);
    else problems.push(`unexpected "${name}": the model has no such tensor`);
  }
  const names = [...leaves.keys()];
  for (const module of adapter.config.modules_to_save ?? []) {
    for (const name of names) {
      if (liesIn(name, module) && !adapter.tensors.has(name))
        problems.push(`missing "${name}" of modules_to_save "${module}"`);
    }
  }
  for (const name of trainedBiases(adapter.config, names, [...known])) {
    if (!adapter.tensors.has(name)) problems.push(`missing "${name}" of bias "${adapter.config.bias}"`);
  }
  return problems;
}
