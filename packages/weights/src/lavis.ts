/**
 * LAVIS's BLIP-2 and InstructBLIP checkpoints in Hugging Face's names. Reference: transformers, `convert_blip_2_original_to_pytorch.py`,
 * `convert_instructblip_original_to_pytorch.py`.
 * LAVIS stores only the trained tensors; the others and the configuration come from a base checkpoint.
 */
import { copyFiles } from './companions';
import { WeightsError } from './errors';
import { list } from './header';
import type { TensorToWrite } from './encode';
import { openWeights } from './files';
import { MODEL_FOLDER, newFolder } from './folder';
import { openTorchCheckpoint } from './torch-checkpoint';
import { writeSharded } from './writer';

/** LAVIS → HF, applied in order; the first five change the start of a name, the others its end. */
const RENAMES: readonly (readonly [RegExp, string])[] = [
  [/^visual_encoder\.cls_token$/, 'vision_model.embeddings.class_embedding'],
  [/^visual_encoder\.pos_embed$/, 'vision_model.embeddings.position_embedding'],
  [/^visual_encoder\.patch_embed\.proj\./, 'vision_model.embeddings.patch_embedding.'],
  [/^visual_encoder\.blocks\.(\d+)\./, 'vision_model.encoder.layers.$1.'],
  [/^ln_vision\./, 'vision_model.post_layernorm.'],
  [/(^vision_model\..*)\.norm([12])\./, '$1.layer_norm$2.'],
  [/(^vision_model\..*)\.attn\.qkv\./, '$1.self_attn.qkv.'],
  [/(^vision_model\..*)\.attn\.proj\./, '$1.self_attn.projection.'],
  [/^Qformer\.bert\.embeddings\.LayerNorm\./, 'qformer.layernorm.'],
  [/^Qformer\.bert\./, 'qformer.'],
  [/(^qformer\..*attention)\.self\./, '$1.attention.'],
  [/^(opt|t5)_proj\./, 'language_projection.'],
  [/^(opt|t5)_model\./, 'language_model.'],
];

/**
 * Names of one tensor. LAVIS deletes frozen parameters from its files by the first of these names (`_save_checkpoint`), so the others
 * stay in them.
 */
const TIED: readonly (readonly string[])[] = [
  ['model.decoder.embed_tokens', 'lm_head'],
  ['shared', 'encoder.embed_tokens', 'decoder.embed_tokens'],
].map((names) => names.map((name) => `language_model.${name}.weight`));

/** Buffers that are not weights. */
const IGNORED = /(^|\.)position_ids$/;
const QV_BIAS = /^visual_encoder\.blocks\.(\d+)\.attn\.([qv])_bias$/;

type Names = Pick<ReadonlyMap<string, unknown>, 'has'>;

/** Hugging Face's name of a LAVIS tensor in this base, except q_bias and v_bias, which HF stores as one tensor. */
export function lavisName(name: string, base: Names): string {
  const known = RENAMES.reduce((text, [pattern, to]) => text.replace(pattern, to), name);
  const instructed = known.replace(/^qformer\.layernorm\./, 'qformer.embeddings.layernorm.');
  return base.has(instructed) ? instructed : known;
}

/** Source of a tensor in Hugging Face's layout. */
interface Source {
  shape: number[];
  read: () => Promise<Float32Array>;
}

export interface LavisImport {
  /** Tensors taken from the LAVIS file. */
  imported: string[];
  /** Number of tensors taken from the base. */
  kept: number;
}

/**
 * Writes `output`, a Hugging Face folder: the base's files with every tensor of the LAVIS checkpoint in its place, in the
 * base's dtypes. The output folder must be new or empty.
 * The folder appears when it is complete.
 * @throws WeightsError for a file that is no checkpoint, and once for every tensor without a place or of another shape
 */
export async function importLavis(file: string, base: string, output: string): Promise<LavisImport> {
  return newFolder(output, MODEL_FOLDER, (at) => convert(file, base, at));
}

async function convert(file: string, base: string, output: string): Promise<LavisImport> {
  const checkpoint = await openTorchCheckpoint(file);
  try {
    const reader = await openWeights(base);
    try {
      refuseLora(checkpoint);
      const sources = withoutCopies(reader.entries, sourcesOf(checkpoint, reader.entries));
      const problems: string[] = [];
      for (const [name, { shape }] of sources) {
        const expected = reader.entries.get(name)?.shape;
        if (!expected) problems.push(`unexpected "${name}": the base has no such tensor`);
        else if (expected.join() !== shape.join())
          problems.push(
            `misshapen "${name}": the base has [${expected.join(', ')}], the file [${shape.join(', ')}]`,
          );
      }
      if (problems.length > 0)
        throw new WeightsError(`${file} does not fit the base ${base}:\n${list(problems)}`, problems);
      const tensors = [...reader.entries.values()].map(({ name, dtype, shape }): TensorToWrite => ({
        name,
        dtype,
        shape,
        data: () => sources.get(name)?.read() ?? reader.readRaw(name),
      }));
      await writeSharded(output, tensors);
      await copyFiles(base, output, /(?<!\.index)\.(json|txt|model|jinja)$/);
      return { imported: [...sources.keys()], kept: tensors.length - sources.size };
    } finally {
      await reader.close();
    }
  } finally {
    await checkpoint.close();
  }
}

/** @throws WeightsError for LoRA in the file, which lacks lora_alpha, so that its scale is unknown */
function refuseLora({ path, tensors }: Checkpoint): void {
  const name = [...tensors.keys()].find((one) => /\.lora_[AB]\./.test(one));
  if (name)
    throw new WeightsError(
      `${path}: it has LoRA ("${name}"), whose lora_alpha is not in the file, so it cannot be merged: pass it as --adapter, a ` +
        'folder with this file as adapter_model.bin and an adapter_config.json (peft_type, r, lora_alpha, target_modules), or ' +
        'in Python save it by model.opt_model.save_pretrained(FOLDER)',
    );
}

type Checkpoint = Awaited<ReturnType<typeof openTorchCheckpoint>>;

function sourcesOf(checkpoint: Checkpoint, base: Names): Map<string, Source> {
  const sources = new Map<string, Source>();
  const put = (name: string, source: Source) => {
    if (sources.has(name)) throw new WeightsError(`${checkpoint.path}: two tensors become "${name}"`);
    sources.set(name, source);
  };
  for (const [name, { shape }] of checkpoint.tensors) {
    const half = QV_BIAS.exec(name);
    if (half?.[2] === 'q')
      put(`vision_model.encoder.layers.${half[1]}.self_attn.qkv.bias`, jointBias(checkpoint, name));
    else if (half) requireHalf(checkpoint, name, name.replace('.v_bias', '.q_bias'));
    else if (!IGNORED.test(name))
      put(lavisName(name, base), { shape, read: () => checkpoint.readFloat32(name) });
  }
  return sources;
}

/** The sources without copies of frozen tensors that the base has under another name. */
function withoutCopies(base: ReadonlyMap<string, unknown>, sources: ReadonlyMap<string, Source>) {
  const copies = TIED.filter((names) => names.some((name) => base.has(name))).flatMap((names) =>
    names.slice(1),
  );
  return new Map([...sources].filter(([name]) => base.has(name) || !copies.includes(name)));
}

/** EVA's attention has no bias on keys: q_bias, zeros, v_bias. */
function jointBias(checkpoint: Checkpoint, q: string): Source {
  const v = q.replace('.q_bias', '.v_bias');
  requireHalf(checkpoint, q, v);
  const size = checkpoint.tensors.get(q)!.shape[0]!;
  const read = async () => {
    const joint = new Float32Array(3 * size);
    joint.set(await checkpoint.readFloat32(q), 0);
    joint.set(await checkpoint.readFloat32(v), 2 * size);
    return joint;
  };
  return { shape: [3 * size], read };
}

function requireHalf({ path, tensors }: Checkpoint, name: string, other: string): void {
  const [a, b] = [tensors.get(name)?.shape, tensors.get(other)?.shape];
  if (a?.length !== 1 || b?.length !== 1 || a[0] !== b[0])
    throw new WeightsError(
      `${path}: expected "${name}" and "${other}" of one length, found [${a}] and [${b ?? 'none'}]`,
    );
}
