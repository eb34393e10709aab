/** Tied tensors of the text model: which ones the configuration ties, and when a checkpoint or an adapter unties them. */
import { flatten } from '@blip2/nn';
import type { Tie } from '@blip2/nn';
import { sameValues } from '@blip2/weights';
import type { WeightReader } from '@blip2/weights';
import { ModelError } from './config';
import type { Blip2Config } from './config';
import { LANGUAGE_MODEL, languageModel } from './language-model';
import type { Blip2 } from './model';

/** The tensors that the configuration ties, by their names in a checkpoint. */
export function tiesOf(config: Blip2Config): readonly Tie[] {
  return languageModel(config).ties(config.text_config, LANGUAGE_MODEL);
}

/** This model's ties and LoRA's default targets, for `@blip2/peft-lora`. */
export function adapterBase(config: Blip2Config): { ties: readonly Tie[]; lora_targets: readonly string[] } {
  return { ties: tiesOf(config), lora_targets: languageModel(config).lora_targets };
}

/**
 * The model with a config that fits its tree: if an adapter trained one of two tied tensors, their values differ, and the
 * saved config must not tie them again.
 */
export function withOwnTies({ params, config }: Blip2): Blip2 {
  const names = flatten(params);
  return { params, config: tiesOf(config).some(({ alias }) => names.has(alias)) ? untied(config) : config };
}

/**
 * The config, untied if the file has different values for tied tensors: transformers 5 keeps both tensors then, whatever
 * the config has. A model saved later is untied too.
 * @throws ModelError if the text model cannot do without the tie
 */
export async function withStoredTies(config: Blip2Config, reader: WeightReader): Promise<Blip2Config> {
  const { entries } = reader;
  const ties = tiesOf(config);
  for (const { tensor, alias } of ties) {
    const names = [tensor, ...ties.flatMap((tie) => (tie.tensor === tensor ? [tie.alias] : []))];
    const stored = names.find((name) => entries.has(name)) ?? alias;
    const [one, other] = [entries.get(stored), entries.get(alias)];
    if (!one || !other || one === other || one.shape.join() !== other.shape.join()) continue; // the strict check reports shapes
    if (await sameValues(reader, stored, alias)) continue;
    config = untied(config);
    if (tiesOf(config).some((tie) => tie.alias === alias))
      throw new ModelError(
        `${alias} and ${stored} have different values in the checkpoint, but are one tensor in this model; save it again in Python`,
      );
  }
  return config;
}

function untied(config: Blip2Config): Blip2Config {
  const apart = { tie_word_embeddings: false };
  const pinned = languageModel(config).pinned?.(config.text_config);
  return {
    ...config,
    text_config: { ...config.text_config, ...apart },
    raw: {
      ...config.raw,
      ...apart,
      text_config: { ...(config.raw.text_config as object), ...pinned, ...apart },
    },
  };
}
