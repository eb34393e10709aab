/** A checkpoint that computes the same, with a few channels that are much larger than the others. */
import { join } from 'node:path';
import { openWeights, writeSafetensors } from '@blip2/weights/node';

/** A norm's tensors, and the linear layers that read its output. */
const READERS: [norm: RegExp, readers: string[]][] = [
  [/^(vision_model\.encoder\.layers\.\d+)\.layer_norm1\./, ['self_attn.qkv']],
  [/^(vision_model\.encoder\.layers\.\d+)\.layer_norm2\./, ['mlp.fc1']],
  [
    /^(language_model\.model\.decoder\.layers\.\d+)\.self_attn_layer_norm\./,
    ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'],
  ],
  [/^(language_model\.model\.decoder\.layers\.\d+)\.final_layer_norm\./, ['fc1']],
];

/**
 * Multiplies weight and bias of the LayerNorms of every layer by `factor` in every `every`-th channel, and divides the columns of the linear
 * layers behind them by it. Replaces model.safetensors of the folder.
 */
export async function putOutliers(dir: string, factor: number, every: number): Promise<void> {
  const file = join(dir, 'model.safetensors');
  const reader = await openWeights(file);
  const tensors = new Map<string, Float32Array>();
  for (const name of reader.entries.keys()) tensors.set(name, await reader.readFloat32(name));
  const scaled = (name: string, by: number, width: number) =>
    tensors.set(
      name,
      tensors.get(name)!.map((x, i) => ((i % width) % every === 1 ? x * by : x)),
    );
  for (const name of [...tensors.keys()])
    for (const [norm, readers] of READERS) {
      const layer = norm.exec(name)?.[1];
      if (layer === undefined) continue;
      const width = tensors.get(name)!.length;
      scaled(name, factor, width);
      if (name.endsWith('.weight'))
        for (const at of readers) scaled(`${layer}.${at}.weight`, 1 / factor, width);
    }
  const list = [...reader.entries.values()].map(({ name, shape }) => ({
    ...{ name, shape, dtype: 'F32' as const },
    data: tensors.get(name)!,
  }));
  await reader.close();
  await writeSafetensors(file, list, reader.metadata);
}
