/**
 * The requests of one adapter, in the worker. They share a TextBatch, which they join between two tokens, in groups of equally long prompts: no
 * row is padded, and a text is the one that it would be alone.
 */
import { beamSteps, TextBatch } from '@blip2/blip2';
import type { BatchToken, Blip2, ImageInput, TextEnd, TokenBatch } from '@blip2/blip2';
import type { Processor } from '@blip2/data-captions';
import { dispose } from '@blip2/nn';
import type { Tensor3D } from '@blip2/nn';
import { attentionMaps } from './attention-maps';
import type { FromWorker } from './messages';
import { textPieces } from './pieces';
import type { PictureReaders, ReadPictures } from './pictures';
import type { Prepared } from './prepare';
import { addToken, scoresOf, textOf } from './results';
import type { Row } from './results';
import type { GeneratedText } from './types';

/** Most pictures that are read between two tokens of the texts under way, which wait meanwhile. */
const MOST_JOINING = 4;

/** A request in the batch: its rows by their keys there. */
interface Job {
  prepared: Prepared;
  rows: Map<number, Row>;
}

/** A request that is computed by itself, in steps: in beam search, or the attention maps of its text. */
interface Own {
  prepared: Prepared;
  steps: AsyncGenerator<void, void, void>;
}

export class Lane {
  private readonly batch: TextBatch;
  private joining: Prepared[] = [];
  /** Those that `join` has taken out of `joining` and not yet placed. */
  private entering: Prepared[] = [];
  private jobs: Job[] = [];
  private own: Own[] = [];

  constructor(
    readonly model: Blip2,
    private readonly processor: Processor,
    private readonly readers: PictureReaders,
    private readonly send: (message: FromWorker) => void,
  ) {
    this.batch = new TextBatch(model);
  }

  get isBusy(): boolean {
    return this.joining.length + this.jobs.length + this.own.length > 0;
  }

  add(prepared: Prepared): void {
    this.joining.push(prepared);
  }

  /**
   * One token of every text. `breathe` lets messages arrive; requests that are in `cancelled` leave.
   */
  async turn(breathe: () => Promise<void>, cancelled: ReadonlySet<number>): Promise<void> {
    try {
      await this.leave(cancelled);
      await this.join();
      for (const token of this.batch.choose()) this.take(token);
      await breathe();
      await this.leave(cancelled);
      await this.batch.run();
      await this.stepOwn();
    } catch (error) {
      await this.abandon(error);
    }
  }

  /** Takes waiting requests into the batch. */
  private async join(): Promise<void> {
    this.entering = this.joining.splice(0, MOST_JOINING);
    const groups = new Map<string, Prepared[]>();
    for (const prepared of this.entering) {
      const key = prepared.answers || needsSearch(prepared) ? `alone ${prepared.id}` : lengthsOf(prepared);
      groups.set(key, [...(groups.get(key) ?? []), prepared]);
    }
    for (const group of groups.values()) await this.joinGroup(group);
    this.entering = [];
  }

  /** If a group fails, each of it joins alone. */
  private async joinGroup(group: Prepared[]): Promise<void> {
    try {
      if (needsSearch(group[0])) this.own.push({ prepared: group[0], steps: this.search(group[0]) });
      else await this.enter(group);
    } catch (error) {
      if (group.length === 1) this.fail(group[0].id, error);
      else for (const one of group) await this.joinGroup([one]);
    }
  }

  private async enter(group: Prepared[]): Promise<void> {
    const image = this.imageOf(group);
    try {
      const [{ tokens, answers }] = group;
      if (answers) {
        const texts = answers.map(({ ids }) => ids);
        this.jobs.push(this.jobOf(group[0], await this.batch.addGiven(image, tokens, texts)));
        return;
      }
      const options = group.map((one) => one.options);
      const keys = await this.batch.add(image, stacked(group), options);
      group.forEach((prepared, i) => this.jobs.push(this.jobOf(prepared, [keys[i]])));
    } finally {
      dispose(image);
    }
  }

  private imageOf(group: Prepared[]): ImageInput {
    return this.readers.input(group.map(({ picture }) => picture));
  }

  private jobOf(prepared: Prepared, keys: number[]): Job {
    const decode = (ids: readonly number[]) => this.processor.decode(ids);
    const row = (): Row => ({ tokens: [], log_probabilities: [], pieces: textPieces(decode) });
    return { prepared, rows: new Map(keys.map((key) => [key, row()])) };
  }

  /** Adds a token to its text, and sends what is complete. */
  private take(token: BatchToken): void {
    const job = this.jobs.find(({ rows }) => rows.has(token.key))!;
    const { id, answers, found, tokens, top } = job.prepared;
    const added = addToken(job.rows.get(token.key)!, token, { top, eos: this.processor.eos });
    if (!answers) this.send({ type: 'token', id, token: added });
    const rows = [...job.rows.values()];
    if (answers ? rows.some(({ end }) => !end) : !token.end) return;
    this.jobs = this.jobs.filter((other) => other !== job);
    if (answers && !found) this.send({ type: 'scores', id, scores: scoresOf(answers, rows) });
    else this.finish(job.prepared, textOf(rows[0], found ?? token.end!, tokens.shape[1]));
  }

  private finish(prepared: Prepared, text: GeneratedText): void {
    const { attention } = this.readers;
    if (!prepared.hasMaps || !attention) this.send({ type: 'text', id: prepared.id, text });
    else this.own.push({ prepared, steps: this.addMaps(prepared, text, attention) });
  }

  private async leave(cancelled: ReadonlySet<number>): Promise<void> {
    const leaves = ({ prepared }: Pick<Job, 'prepared'>) => cancelled.has(prepared.id);
    const waiting = this.joining.filter(({ id }) => cancelled.has(id));
    const [jobs, own] = [this.jobs.filter(leaves), this.own.filter(leaves)];
    if (waiting.length + jobs.length + own.length === 0) return;
    this.batch.remove(jobs.flatMap(({ rows }) => [...rows.keys()]));
    for (const { steps } of own) await steps.return();
    this.joining = this.joining.filter((one) => !waiting.includes(one));
    this.jobs = this.jobs.filter((one) => !jobs.includes(one));
    this.own = this.own.filter((one) => !own.includes(one));
    const left = [...waiting, ...[...jobs, ...own].map(({ prepared }) => prepared)];
    for (const { id } of left) this.send({ type: 'cancelled', id });
  }

  /** One step of every request that is computed by itself. */
  private async stepOwn(): Promise<void> {
    for (const one of this.own) {
      const failed = (error: unknown) => {
        this.fail(one.prepared.id, error);
        return { done: true };
      };
      const { done } = await one.steps.next().catch(failed);
      if (done) this.own = this.own.filter((other) => other !== one);
    }
  }

  /** Beam search. The text that is found joins the batch, for the probabilities of its tokens. */
  private async *search(prepared: Prepared): AsyncGenerator<void, void, void> {
    const image = this.imageOf([prepared]);
    try {
      const [ids] = yield* beamSteps(this.model, image, prepared.tokens, prepared.options);
      this.joining.unshift(this.foundText(prepared, ids));
    } finally {
      dispose(image);
    }
  }

  private async *addMaps(
    { id, picture, tokens }: Prepared,
    text: GeneratedText,
    read: ReadPictures,
  ): AsyncGenerator<void, void, void> {
    const tensors: Tensor3D[] = [];
    try {
      tensors.push(...(Object.values(this.readers.input([picture])) as Tensor3D[]));
      tensors.push(read([picture]));
      const ids = text.tokens.map((token) => token.id);
      const maps = yield* attentionMaps(this.model, tensors[0], tensors[1], tokens, ids);
      const mapped = text.tokens.map((token, i) => ({ ...token, attention_map: maps[i] }));
      this.send({ type: 'text', id, text: { ...text, tokens: mapped } });
    } finally {
      dispose(tensors);
    }
  }

  private foundText(prepared: Prepared, ids: number[]): Prepared {
    const { options } = prepared;
    const { eos } = this.processor;
    const stops = [options.stop_strings ?? []].flat();
    const text = this.processor.decode(ids);
    const found: TextEnd =
      ids.length >= options.max_new_tokens!
        ? 'length'
        : stops.some((stop) => text.includes(stop))
          ? 'stop_string'
          : 'end_token';
    return { ...prepared, answers: [{ text, ids: found === 'end_token' ? [...ids, eos] : ids }], found };
  }

  /** After an error of the computation itself: all requests under way end with it. */
  private async abandon(error: unknown): Promise<void> {
    for (const { steps } of this.own) await steps.return().catch(() => undefined);
    const placed = [...this.jobs, ...this.own].map(({ prepared }) => prepared);
    const ids = new Set([...placed, ...this.entering].map(({ id }) => id));
    [this.jobs, this.own, this.entering] = [[], [], []];
    this.batch.dispose();
    for (const id of ids) this.fail(id, error);
  }

  /** What a request may not ask for was refused by `prepare`. */
  private fail(id: number, error: unknown): void {
    this.send({ type: 'error', id, name: 'ComputeError', message: (error as Error).message });
  }
}

const needsSearch = ({ answers, options }: Prepared) => !answers && (options.num_beams ?? 1) > 1;

/** The lengths of a prompt: rows with the same ones need no pads. */
const lengthsOf = ({ tokens: { shape, instructions } }: Prepared) =>
  `${shape[1]} ${instructions?.shape[1] ?? ''}`;

/** Prompts of the same lengths as a batch. */
function stacked(group: Prepared[]): TokenBatch {
  const tokens = group.map((one) => one.tokens);
  const instructions = tokens.flatMap((one) => one.instructions ?? []);
  return { ...rowsOf(tokens), ...(instructions.length > 0 && { instructions: rowsOf(instructions) }) };
}

type Rows = Pick<TokenBatch, 'input_ids' | 'attention_mask' | 'shape'>;

function rowsOf(tokens: readonly Rows[]): Rows {
  const joined = (name: 'input_ids' | 'attention_mask') =>
    Int32Array.from(tokens.flatMap((one) => [...one[name]]));
  return {
    input_ids: joined('input_ids'),
    attention_mask: joined('attention_mask'),
    shape: [tokens.length, tokens[0].shape[1]],
  };
}
