/** State of a generation between two tokens: the text model's cache on the backend, the scores on the host. */
import { tidy } from '@blip2/nn';
import type { LanguageModel, Tensor2D } from '@blip2/nn';
import { ModelError } from './config';
import { inputEmbeds } from './forward';
import type { Blip2Options, ImageInput } from './forward';
import { languageModel } from './language-model';
import type { TextModelParams } from './language-model';
import type { Blip2 } from './model';
import { writingModel } from './output-layer';
import type { TokenBatch } from './tokens';

export class Decoder {
  /** Scores of the next token, one array [V] per row; the caller may change them. */
  scores: Float32Array[] = [];
  private readonly text: LanguageModel;
  private readonly params: TextModelParams;
  /** undefined before the prompt has run */
  private state: unknown;
  /** the row of the state for each row of scores */
  private rows: number[] = [];
  /** rows of the state */
  private held = 0;
  /** of one row: tokens of a draft that the state has already, each with the scores after it */
  private ahead: { id: number; scores: Float32Array }[] = [];

  constructor(private readonly model: Blip2) {
    this.text = languageModel(model.config);
    this.params = writingModel(model).params.language_model;
  }

  /** Runs image and prompt. */
  async prefill(image: ImageInput | undefined, tokens: TokenBatch, o: Blip2Options): Promise<void> {
    const { text_config } = this.model.config;
    await this.advance(() => {
      const x = inputEmbeds(this.model, image, tokens, o);
      return this.text.start(this.params, text_config, x, tokens.attention_mask);
    });
  }

  /** Repeats the scores of each row `times` times, one copy after the other: several continuations of one prompt. */
  repeat(times: number): void {
    if (times === 1) return;
    const from = this.scores.flatMap((_, row) => Array<number>(times).fill(row));
    this.scores = from.map((row) => this.scores[row].slice());
    this.rows = from;
  }

  /** Adds the rows of another generation of this model behind these. `other` is empty afterwards. */
  join(other: Decoder): void {
    [this, other].forEach((one) => one.forgetDraft());
    const states = [this.state, other.state].filter((state) => state !== undefined);
    const first = this.held;
    this.state = states.length > 1 ? this.text.join(states) : states[0];
    this.scores = [...this.scores, ...other.scores];
    this.rows = [...this.rows, ...other.rows.map((row) => first + row)];
    this.held += other.held;
    other.clear();
  }

  /**
   * Appends one token to each row, row i being a continuation of the former row `from[i]` of scores. For a single row, `draft` returns tokens
   * that may follow it: they are run in the same pass, and a step to one of them then takes none.
   */
  async step(ids: number[], from: number[], draft?: () => readonly number[]): Promise<void> {
    const { text_config } = this.model.config;
    const next = this.ahead.shift();
    if (next && next.id === ids[0] && ids.length === 1) {
      this.scores = [next.scores];
      return;
    }
    if (next) this.ahead.unshift(next);
    this.forgetDraft();
    const { drafts } = this.text;
    const drafted = drafts && ids.length === 1 && this.held === 1 ? (draft?.() ?? []) : [];
    if (drafted.length > 0) {
      const run = Int32Array.of(ids[0], ...drafted);
      await this.advance(() => drafts!.extend(this.params, text_config, this.state, run));
      this.ahead = drafted.map((id, i) => ({ id, scores: this.scores[i + 1] }));
      [this.scores, this.rows, this.held] = [[this.scores[0]], [0], 1];
      return;
    }
    const last = [Int32Array.from(ids), Int32Array.from(from, (row) => this.rows[row])] as const;
    await this.advance(() => this.text.step(this.params, text_config, this.state, ...last));
  }

  /** Takes the rest of a draft out of the state. */
  private forgetDraft(): void {
    if (this.ahead.length > 0) this.state = this.text.drafts!.shorten(this.state, this.ahead.length);
    this.ahead = [];
  }

  dispose(): void {
    if (this.state !== undefined) this.text.free(this.state);
    this.clear();
  }

  private clear(): void {
    this.state = undefined;
    [this.scores, this.rows, this.held, this.ahead] = [[], [], 0, []];
  }

  private async advance(run: () => { state: unknown; scores: Tensor2D }): Promise<void> {
    const logits = tidy(() => {
      const { state, scores } = run();
      this.state = state;
      return scores;
    });
    const [B, V] = logits.shape;
    const values = (await logits.data()) as Float32Array;
    logits.dispose();
    this.scores = Array.from({ length: B }, (_, b) => values.slice(b * V, (b + 1) * V));
    this.rows = this.scores.map((_, b) => b);
    this.held = B;
    const bad = this.scores.findIndex(([first]) => Number.isNaN(first)); // a NaN in the hidden state reaches every score
    if (bad >= 0)
      throw new ModelError(
        `generate: the scores of row ${bad} are NaN; check whether weights, adapter or image features are damaged`,
      );
  }
}
