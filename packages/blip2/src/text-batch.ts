/**
 * Texts that are generated token by token in one batch, and that may join and leave between two tokens (continuous batching: Yu et al. 2022,
 * "Orca"). A text is the one that it would be alone: rows do not see each other, and each has its own options.
 */
import { ModelError } from './config';
import { Decoder } from './decoder';
import type { ImageInput } from './forward';
import { settings } from './generate-options';
import type { GenerateOptions, Settings } from './generate-options';
import { endOf, promptRows } from './history';
import type { Prompt, TextEnd } from './history';
import type { Blip2 } from './model';
import { drawOf, drawToken, softmax, textKey, warpScores } from './sampling';
import { applyRules, argMax, logSumExp } from './score-rules';
import type { TokenBatch } from './tokens';

/** The next token of a text. */
export interface BatchToken {
  /** The text, as `add` returned it. */
  key: number;
  id: number;
  /** Natural logarithm of the model's own probability of this token: before rules, temperature and limits. */
  logProbability: number;
  /** The model's scores of all tokens at its place, [V]: the probabilities are their softmax. */
  scores: Float32Array;
  /** Why the text ends with this token; undefined if it goes on. */
  end?: TextEnd;
}

/** Chooses the token at a position of a text; may change the scores. */
type Choose = (scores: Float32Array, position: number) => number;

/** A text that joins: the row of its prompt, and how it goes on. */
interface Given {
  row: number;
  o: Settings;
  choose: Choose;
}

interface OpenText {
  key: number;
  prompt: Prompt;
  fresh: number[];
  o: Settings;
  choose: Choose;
  /** the row of the decoder's scores */
  at: number;
}

export class TextBatch {
  private readonly decoder: Decoder;
  private texts: OpenText[] = [];
  private nextKey = 0;

  constructor(private readonly model: Blip2) {
    this.decoder = new Decoder(model);
  }

  /** Number of texts that have not ended. */
  get size(): number {
    return this.texts.length;
  }

  /**
   * Runs image and prompts, whose texts then take part; returns their keys, num_return_sequences for each prompt. `options` are those of all
   * prompts, or a list with one for each. Call it where `choose` can be called. If it throws, the other texts are as before.
   * @throws ModelError as `generate`, and for num_beams above 1 (`beamSteps`)
   */
  async add(
    image: ImageInput | undefined,
    tokens: TokenBatch,
    options: GenerateOptions | readonly GenerateOptions[] = {},
  ): Promise<number[]> {
    const [B] = tokens.shape;
    const shared = !Array.isArray(options);
    const each = shared
      ? Array<GenerateOptions>(B).fill(options as GenerateOptions)
      : (options as GenerateOptions[]);
    const all = each.map((one) => settings(this.model, tokens, one));
    const n = all[0]?.num_return_sequences;
    if (all.length !== B || all.some((o) => o.num_return_sequences !== n))
      throw new ModelError('generate: expected options for each prompt, with one num_return_sequences');
    if (all.some(({ num_beams }) => num_beams > 1))
      throw new ModelError(
        'generate: beam search cannot stream, its texts change until the end; use num_beams 1',
      );
    const texts = all.flatMap((o, row) =>
      Array.from({ length: n }, (_, i): Given => {
        const text = (o.first_row + (shared ? row : 0)) * n + i;
        return { row, o, choose: chooser(o, text) };
      }),
    );
    return this.join(image, tokens, texts);
  }

  /**
   * As `add`, for given texts: the tokens that `choose` returns are theirs, with the probability of each. One prompt, and every text is a list
   * of ids that ends with an end token, or is cut off.
   */
  async addGiven(
    image: ImageInput | undefined,
    tokens: TokenBatch,
    texts: readonly (readonly number[])[],
    options: Pick<GenerateOptions, 'interpolate_pos_encoding'> = {},
  ): Promise<number[]> {
    if (tokens.shape[0] !== 1 || texts.length === 0 || texts.some(({ length }) => length === 0))
      throw new ModelError('generate: given texts need one prompt, and at least one token each');
    const given = texts.map((ids): Given => {
      const o = settings(this.model, tokens, { ...options, max_new_tokens: ids.length });
      return { row: 0, o: { ...o, eos_token_id: [] }, choose: (_, position) => ids[position] };
    });
    return this.join(image, tokens, given);
  }

  private async join(image: ImageInput | undefined, tokens: TokenBatch, texts: Given[]): Promise<number[]> {
    const prompts = promptRows(this.model, tokens);
    const joining = new Decoder(this.model);
    try {
      await joining.prefill(image, tokens, texts[0].o);
    } catch (error) {
      joining.dispose();
      throw error;
    }
    joining.repeat(texts.length / prompts.length);
    const first = this.decoder.scores.length;
    this.decoder.join(joining);
    const added = texts.map(({ row, o, choose }, i): OpenText => {
      const text = { prompt: prompts[row], fresh: [], o, choose };
      return { ...text, key: this.nextKey++, at: first + i };
    });
    this.texts.push(...added);
    return added.map(({ key }) => key);
  }

  /** The next token of every text; those that end with it leave. */
  choose(): BatchToken[] {
    const chosen = this.texts.map((text) => this.tokenOf(text));
    this.texts = this.texts.filter((_, i) => chosen[i].end === undefined);
    return chosen;
  }

  private tokenOf({ key, prompt, fresh, o, choose, at }: OpenText): BatchToken {
    const scores = this.decoder.scores[at];
    const own = scores.slice();
    applyRules(scores, { ...prompt, fresh }, o);
    const id = choose(scores, fresh.length);
    fresh.push(id);
    return {
      key,
      id,
      scores: own,
      end: endOf(prompt, fresh, o),
      // a sum over the vocabulary, which most callers do not need
      get logProbability() {
        return own[id] - logSumExp(own);
      },
    };
  }

  /** Drops texts; their memory is free after the next `run`. */
  remove(keys: readonly number[]): void {
    this.texts = this.texts.filter(({ key }) => !keys.includes(key));
  }

  /** Runs the tokens of the last `choose` through the model. @throws ModelError for scores that are NaN */
  async run(): Promise<void> {
    if (this.texts.length === 0) return this.dispose();
    const [{ fresh, o }] = this.texts;
    await this.decoder.step(
      this.texts.map(({ fresh }) => fresh.at(-1)!),
      this.texts.map(({ at }) => at),
      o.draft && (() => o.draft!(fresh).slice(0, Math.max(0, o.max_new_tokens - fresh.length - 1))),
    );
    this.texts.forEach((text, i) => (text.at = i));
  }

  /** Drops all texts and frees their memory. */
  dispose(): void {
    this.texts = [];
    this.decoder.dispose();
  }
}

/** Returns the function that chooses the tokens of text number `text` among those that share a seed. */
function chooser(o: Settings, text: number): Choose {
  if (!o.do_sample) return argMax;
  const key = textKey(o.seed, text);
  return (scores, position) => {
    warpScores(scores, o);
    return drawToken(softmax(scores), drawOf(key, position));
  };
}
