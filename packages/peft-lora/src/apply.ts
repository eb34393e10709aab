/** Putting a loaded adapter on a tree. */
import { type LoraPart, type Tensor, type Tensor2D, flatten, replaceLeaves, tensor } from '@blip2/nn';
import { AdapterError, list } from './errors';
import type { Adapter, HostTensor } from './files';
import { refuseSecondAdapter, shapesOf, variableOf, withParts } from './lora';
import { type LoraTarget, matchTargets } from './match';

/**
 * A new tree that carries the adapter: LoRA on its modules, trained tensors in place of the base's. Other tensors are shared.
 * @param options.trainable makes what the adapter holds Variables, to continue training; frozen tensors by default
 * @throws AdapterError once, with every missing, unexpected and misshapen tensor
 */
export function applyAdapter<T extends object>(
  tree: T,
  adapter: Adapter,
  options: { trainable?: boolean } = {},
): T {
  refuseSecondAdapter(tree);
  const targets = matchTargets(adapter.config, shapesOf(tree), false);
  const problems = misfits(adapter, targets, flatten(tree));
  if (problems.length > 0) {
    const base = adapter.config.base_model_name_or_path;
    const hint = base ? `\nThe adapter was made for the base model "${base}".` : '';
    throw new AdapterError(
      `${adapter.where}: the adapter does not fit the model:\n${list(problems)}${hint}`,
      problems,
    );
  }
  const make = ({ data, shape }: HostTensor, name: string): Tensor =>
    options.trainable ? variableOf(data, shape, name) : tensor(data, shape);
  const parts = targets.map(({ module, scaling }): [string, LoraPart] => {
    const { A, B } = adapter.lora.get(module)!;
    const lora_A = { weight: make(A, `${module}.lora_A`) as Tensor2D };
    const lora_B = { weight: make(B, `${module}.lora_B`) as Tensor2D };
    return [module, { lora_A, lora_B, scaling, dropout: adapter.config.lora_dropout }];
  });
  const replaced = replaceLeaves(tree, (name, leaf) => {
    const value = adapter.tensors.get(name);
    return value ? make(value, name) : leaf;
  });
  return withParts(replaced, new Map(parts));
}

/** What the adapter lacks, has too much, or has in another shape than the model. */
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
  for (const module of adapter.config.modules_to_save ?? []) {
    for (const name of leaves.keys()) {
      if (`.${name}`.includes(`.${module}.`) && !adapter.tensors.has(name))
        problems.push(`missing "${name}" of modules_to_save "${module}"`);
    }
  }
  return problems;
}
