/** The text models that a checkpoint may hold, by `text_config.model_type`: the one place in this package that names them. */
import type { LanguageModel } from '@blip2/nn';
import { opt } from '@blip2/opt-decoder';

const LANGUAGE_MODELS = { opt } satisfies Record<string, LanguageModel>;

/** What transformers' `Blip2Config` takes for a text_config without model_type. */
const DEFAULT: keyof typeof LANGUAGE_MODELS = 'opt';

type Known = (typeof LANGUAGE_MODELS)[keyof typeof LANGUAGE_MODELS];
/** Configuration of any known text model. */
export type TextModelConfig = ReturnType<Known['parse']>;
/** Parameters of any known text model. */
export type TextModelParams = Parameters<Known['embed']>[0];

/** The prefix of the text model's tensors in a checkpoint. */
export const LANGUAGE_MODEL = 'language_model.';

/** The text model of a configuration; it takes the `language_model` of parameters that were made for that configuration. */
export function languageModel({ text_config }: { text_config: TextModelConfig }): LanguageModel {
  return LANGUAGE_MODELS[text_config.model_type];
}

/** Reads `text_config` by its own model_type. @throws Error for a model that is not known, or a wrong field */
export function parseTextConfig(json: Record<string, unknown>, where: string): TextModelConfig {
  const { model_type = DEFAULT } = json;
  const known = Object.entries(LANGUAGE_MODELS).find(([name]) => name === model_type);
  if (known) return known[1].parse(json, where);
  const names = Object.keys(LANGUAGE_MODELS).map((name) => `"${name}"`);
  throw new Error(
    `${where}: model_type: expected ${names.join(' or ')}, found ${JSON.stringify(model_type)}: this language model is not ` +
      'supported; use another checkpoint, such as Salesforce/blip2-opt-2.7b',
  );
}
