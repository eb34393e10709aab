/** What each preset is for, which one is recommended, and what would make a run fit. The evidence is in docs/which-layers.md. */
import type { PresetName } from '@blip2/peft-lora';
import type { FitConfig } from '../config';

/** What trains, and when one would choose it. */
export const PURPOSE: Readonly<Record<PresetName, { trains: string; when: string }>> = {
  lora: {
    trains: 'LoRA in the language model',
    when: 'new wording on pictures of a kind that the model knows; the smallest result',
  },
  qformer: {
    trains: 'the Q-Former',
    when: 'the wording that the model has; it cannot learn new words',
  },
  'qformer-projection': {
    trains: 'Q-Former, queries and projection',
    when: "the paper's set: very many pictures, the wording that the model has",
  },
  'lora+qformer': {
    trains: 'LoRA, Q-Former, queries and projection',
    when: 'thousands of pictures, each seen several times; with few, LoRA alone is better',
  },
  full: {
    trains: 'all weights',
    when: 'pictures unlike those that the model knows; small models, or a very large machine',
  },
};

/** The same for LoRA in the upper layers alone. The quality is of two of four layers of the small base, 200 pictures. */
export function upperPurpose(
  { num_hidden_layers }: { num_hidden_layers: number },
  depth: number,
  { lora }: Pick<FitConfig, 'lora'>,
): { trains: string; when: string } {
  const layers = lora?.layers_to_transform;
  const how = layers === undefined ? '' : `; --set lora.layers_to_transform=${JSON.stringify(layers)}`;
  return {
    trains: `LoRA in the upper ${num_hidden_layers - depth} of ${num_hidden_layers} layers; the ${depth} below run once for each picture and text`,
    when:
      'trying things out: many epochs in little time. The small base had 33 % of captions right so, and 52 % with all layers (docs/which-layers.md)' +
      how,
  };
}

/** Rows from which training the Q-Former as well is recommended: it was better after 12,600 pictures, worse after 2,400. */
const MANY = 10_000;
/** Rows from which training all weights of a narrow model is recommended. */
const ENOUGH = 1000;
/** Width of the language model up to which that holds; the width measured is 192. */
const NARROW = 512;

/**
 * The presets in the order in which they are recommended, with the reason and the evidence for the first.
 * @param o.width hidden size of the language model; without it, that of a full-size one
 */
export function recommendedPresets(o: { rows: number; width?: number }): {
  order: PresetName[];
  why: string;
} {
  const { rows, width = Infinity } = o;
  if (width <= NARROW && rows >= ENOUGH)
    return {
      order: ['full', 'lora', 'lora+qformer', 'qformer-projection', 'qformer'],
      why: 'with 1,000 pictures a narrow model learns new kinds of pictures best so, and others as well as with lora (docs/which-layers.md)',
    };
  if (rows < MANY)
    return {
      order: ['lora', 'lora+qformer', 'qformer-projection', 'qformer'],
      why: `${rows.toLocaleString('en')} rows are few for more than LoRA: up to 1,000 pictures it was better alone than with the Q-Former (docs/which-layers.md)`,
    };
  return {
    order: ['lora+qformer', 'lora', 'qformer-projection', 'qformer'],
    why: 'after 12,600 pictures of the demo it has exact match .69, lora .58 (docs/decisions/0004-demo-preset.md)',
  };
}
