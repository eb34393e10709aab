/** The supported text models by `text_config.model_type`. No other file of this package names one. */
import type { LanguageModel } from '@blip2/nn';
import { opt } from '@blip2/opt-decoder';
import { t5 } from '@blip2/t5-language-model';

const LANGUAGE_MODELS = { opt, t5 } satisfies Record<string, LanguageModel>;

/** The default of transformers' `Blip2Config` for a text_config without model_type. */
const DEFAULT: keyof typeof LANGUAGE_MODELS = 'opt';

type Known = (typeof LANGUAGE_MODELS)[keyof typeof LANGUAGE_MODELS];
/** Configuration of any supported text model. */
export type TextModelConfig = ReturnType<Known['parse']>;
/** Parameters of any supported text model. */
export type TextModelParams = Parameters<Known['embed']>[0];

/** The prefix of the text model's tensors in a checkpoint. */
export const LANGUAGE_MODEL = 'language_model.';

/** The text model of a configuration; use it only with parameters of the same configuration. */
export function languageModel({ text_config }: { text_config: TextModelConfig }): LanguageModel {
  return LANGUAGE_MODELS[text_config.model_type];
}

/** Parses `text_config` by its own model_type. @throws Error for an unsupported model or a wrong field */
export function parseTextConfig(json: Record<string, unknown>, where: string): TextModelConfig {
  const { model_type = DEFAULT } = json;
  const known = Object.entries(LANGUAGE_MODELS).find(([name]) => name === model_type);
  if (known) return known[1].parse(json, where);
  const names = Object.keys(LANGUAGE_MODELS).map((name) => `"${name}"`);
  const what = model_type === 'llama' ? 'LLaMA and Vicuna are' : 'this language model is';
  throw new Error(
    `${where}: model_type: expected ${names.join(' or ')}, found ${JSON.stringify(model_type)}: ${what} not supported; ` +
      'use another checkpoint, such as Salesforce/blip2-opt-2.7b, blip2-flan-t5-xl or instructblip-flan-t5-xl',
  );
}
