/** The text model between two tokens of generation: its cache on the backend, masks and scores on the host. */
import { dispose, keep, reshape, tidy, type Tensor2D, type Tensor3D } from '@blip2/nn';
import { decode, embedTokens, lmLogits, type KvCache } from '@blip2/opt-decoder';
import { ModelError } from './config';
import { inputEmbeds, type Blip2Options, type ImageInput } from './forward';
import type { Blip2 } from './model';
import type { TokenBatch } from './tokens';

export class Decoder {
  /** Scores of the next token, one row [V] each; free to be changed. */
  scores: Float32Array[] = [];
  private cache: KvCache | undefined;
  private masks: number[][];

  constructor(
    private readonly model: Blip2,
    { attention_mask, shape: [B, T] }: TokenBatch,
  ) {
    this.masks = Array.from({ length: B }, (_, b) => [...attention_mask.subarray(b * T, (b + 1) * T)]);
  }

  /** Runs image and prompt. */
  async prefill(image: ImageInput | undefined, tokens: TokenBatch, o: Blip2Options): Promise<void> {
    await this.advance(() => inputEmbeds(this.model, image, tokens, o));
  }

  /** Lets each row stand `times` times, one copy after the other: several continuations of one prompt. */
  repeat(times: number): number[] {
    const from = this.scores.flatMap((_, row) => Array<number>(times).fill(row));
    this.scores = from.map((row) => this.scores[row].slice());
    return from;
  }

  /** Appends one token to each row, row i being a continuation of the former row `from[i]`. */
  async step(ids: number[], from: number[]): Promise<void> {
    const moved = from.length !== this.masks.length || from.some((row, i) => row !== i);
    this.masks = from.map((row) => [...this.masks[row], 1]);
    const { language_model } = this.model.params;
    await this.advance(
      () => embedTokens(language_model, Int32Array.from(ids), [ids.length, 1]),
      moved ? Int32Array.from(from) : undefined,
    );
  }

  dispose(): void {
    this.cache?.pages.forEach(({ layers }) => dispose(layers));
    this.cache = undefined;
  }

  private async advance(embeds: () => Tensor3D, cacheRows?: Int32Array): Promise<void> {
    const { params, config } = this.model;
    const attention_mask = Int32Array.from(this.masks.flat());
    const logits = tidy(() => {
      const x = embeds(); // [B, T, D], T = 1 after the prompt
      const [B, T, D] = x.shape;
      const rows = Int32Array.from({ length: B }, (_, b) => (b + 1) * T - 1); // the last of each
      const o = { attention_mask, cache: this.cache, cacheRows, useCache: true, rows };
      const { hidden, cache } = decode(params.language_model, x, config.text_config, o);
      const scores = lmLogits(params.language_model, reshape<Tensor2D>(hidden, [B, D])); // [B, V]
      cache!.pages.at(-1)!.layers.forEach(({ k, v }) => [k, v].forEach(keep));
      this.cache = cache;
      return scores;
    });
    const [B, V] = logits.shape;
    const values = (await logits.data()) as Float32Array;
    logits.dispose();
    this.scores = Array.from({ length: B }, (_, b) => values.slice(b * V, (b + 1) * V));
    const bad = this.scores.findIndex(([first]) => Number.isNaN(first)); // a NaN in the hidden state reaches every score
    if (bad >= 0)
      throw new ModelError(
        `generate: the model's scores of row ${bad} are not numbers (NaN); are weights, adapter or image features damaged?`,
      );
  }
}
