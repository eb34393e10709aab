/** A model for retrieval made from one for captions: the start of training where there is no checkpoint of the first stage. */
import { ModelError } from '@blip2/blip2';
import type { Blip2 } from '@blip2/blip2';
import { fold, normal, rngKey, tensor, zeros } from '@blip2/nn';
import type { Linear } from '@blip2/nn';
import type { QFormerLayer } from '@blip2/qformer';
import { parseRetrievalConfig } from './config';
import type { RetrievalModel } from './model';

export interface NewTexts {
  /** of the tokenizer */
  vocab_size: number;
  /** most tokens of a text. Default: 64 */
  max_position_embeddings?: number;
  /** Default: that of the config, 256 */
  image_text_hidden_size?: number;
  seed?: number;
}

const DEVIATION = 0.02;

/**
 * Tower, queries and Q-Former are those of `model`, whose tensors are shared; the Q-Former's feed-forward layers for texts start as those
 * for queries, which LAVIS makes from each other, too. Words, projections and matching head are drawn from the seed.
 * @throws ModelError for InstructBLIP
 */
export function retrievalFrom({ config, params }: Blip2, o: NewTexts): RetrievalModel {
  const { raw } = config;
  const { vocab_size, max_position_embeddings = 64, seed = 0 } = o;
  const image_text_hidden_size = o.image_text_hidden_size ?? Number(raw.image_text_hidden_size ?? 256);
  const qformer_config = {
    ...(raw.qformer_config as object),
    ...{ use_qformer_text_input: true, vocab_size, max_position_embeddings },
  };
  const json = {
    ...raw,
    ...{ architectures: ['Blip2ForImageTextRetrieval'], image_token_index: null, image_text_hidden_size },
    ...{ dtype: 'float32', qformer_config },
  };
  const { qformer } = params;
  if (!('layernorm' in qformer))
    throw new ModelError(
      'retrievalFrom: expected a model for captions whose Q-Former reads images alone, found InstructBLIP',
    );
  const D = config.qformer_config.hidden_size;
  const drawn = (name: string, rows: number, columns: number) =>
    tensor(
      normal(fold(rngKey(seed), name), rows * columns).map((x) => DEVIATION * x),
      [rows, columns],
    );
  const linear = (name: string, out: number) =>
    ({ weight: drawn(name, out, D), bias: zeros([out]) }) as Linear;
  const layer = qformer.encoder.layer.map((one): QFormerLayer => ({
    ...one,
    intermediate: one.intermediate_query,
    output: one.output_query,
  }));
  return {
    config: parseRetrievalConfig(json),
    params: {
      query_tokens: params.query_tokens,
      vision_model: params.vision_model,
      qformer: { ...qformer, encoder: { layer } },
      embeddings: {
        word_embeddings: { weight: drawn('words', vocab_size, D) },
        position_embeddings: { weight: drawn('positions', max_position_embeddings, D) },
      } as RetrievalModel['params']['embeddings'],
      vision_projection: linear('vision projection', image_text_hidden_size),
      text_projection: linear('text projection', image_text_hidden_size),
      itm_head: linear('matching head', 2),
    },
  };
}

type Json = Record<string, unknown>;

/** BERT's frame of a text, and LAVIS's start of a generated one. */
const FRAME = ['[PAD]', '[CLS]', '[SEP]', '[DEC]'] as const;

/**
 * tokenizer.json of a language model with BERT's frame instead of its own, and tokenizer_config.json for it.
 * @throws ModelError for a file without a vocabulary
 */
export function framedTokenizer(
  json: Json,
  max_length: number,
): { vocab_size: number; files: Record<string, Json> } {
  const { vocab } = (json.model ?? {}) as { vocab?: unknown };
  const words = Array.isArray(vocab) ? vocab.length : Object.values(vocab ?? {}).length;
  if (words === 0) throw new ModelError('tokenizer.json: expected model.vocab with tokens, found none');
  const given = (json.added_tokens ?? []) as { id: number; content: string }[];
  const ids = Array.isArray(vocab) ? [words - 1] : (Object.values(vocab as object) as number[]);
  const first = 1 + [...ids, ...given.map(({ id }) => id)].reduce((a, b) => Math.max(a, b), 0);
  const plain = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  const missing = FRAME.filter((content) => !given.some((token) => token.content === content));
  const added = [...given, ...missing.map((content, i) => ({ id: first + i, content, ...plain }))];
  const idOf = (token: string) => added.find(({ content }) => content === token)!.id;
  const special = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
  const sequence = { Sequence: { id: 'A', type_id: 0 } };
  const post_processor = {
    type: 'TemplateProcessing',
    single: [special('[CLS]'), sequence, special('[SEP]')],
    pair: [special('[CLS]'), sequence, special('[SEP]')],
    special_tokens: Object.fromEntries(
      ['[CLS]', '[SEP]'].map((id) => [id, { id, ids: [idOf(id)], tokens: [id] }]),
    ),
  };
  const config = {
    ...{ tokenizer_class: 'PreTrainedTokenizerFast', clean_up_tokenization_spaces: false },
    ...{ model_max_length: max_length, padding_side: 'right' },
    ...{ bos_token: '[DEC]', cls_token: '[CLS]', sep_token: '[SEP]', pad_token: '[PAD]' },
  };
  return {
    vocab_size: first + missing.length,
    files: {
      'tokenizer.json': { ...json, truncation: null, padding: null, added_tokens: added, post_processor },
      'tokenizer_config.json': config,
    },
  };
}
