/** What each preset is for, which one is recommended, and what would make a run fit. The evidence is in docs/which-layers.md. */
import type { PresetName } from '@blip2/peft-lora';

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
