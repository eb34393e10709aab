/** The tables of a full-size model: steps, an epoch, captions, kernels, and steps beside a busy process. */
import { join } from 'node:path';
import type { Blip2Config } from '@blip2/blip2';
import { loadConfig } from '@blip2/blip2/node';
import type { Precision } from '@blip2/nn';
import { writePictures } from './pictures';
import { kernelTable } from './kernel-table';
import { machineLine } from './machine';
import { besideBusyProcess } from './processes';
import { GPU_STEP_HEAD, STEP_HEAD, stepRows, takeTurns } from './rows';
import type { Competitor } from './rows';
import { captionOf, stepOf } from './sides';
import type { Sides, SideName, StepRun } from './sides';
import type { StepPreset, StepReport } from './step';
import { digits, gigabytes, markdownTable, median, times } from './table';
import { syntheticBatch, writeWork } from './work';

export const FULL_PARTS = ['steps', 'shared', 'upper', 'epoch', 'captions', 'kernels', 'busy'] as const;
export type FullPart = (typeof FULL_PARTS)[number];

/** PyTorch with bfloat16 weights, or with its dynamic int8 linear layers where no gradient passes. */
export const RIVALS = ['bfloat16', 'int8'] as const;
export type Rival = (typeof RIVALS)[number];

export interface FullOptions {
  /** Folder of work files. */
  dir: string;
  model: string;
  parts: readonly FullPart[];
  precision: Precision;
  /** Of PyTorch; ratios are to the first. */
  rivals: readonly Rival[];
  /** Of the steps. */
  presets: readonly StepPreset[];
  /** Layers with LoRA in the part `upper`. */
  upper: number;
  /** Of the captions. */
  beams: readonly number[];
  batches: readonly number[];
  texts: readonly number[];
  /** Timed steps, after one that warms up. */
  steps: number;
  rounds: number;
  epochImages: number;
  /** Time both of PyTorch's attentions first and take the faster one. */
  findAttention: boolean;
}

/** Prints each table as soon as it is measured. */
export async function fullTables(sides: Sides, o: FullOptions): Promise<void> {
  const config = await loadConfig(o.model);
  const full = new Full(o.findAttention ? await withFasterAttention(sides, o, config) : sides, o, config);
  const rivals =
    o.rivals.length > 0 ? ` PyTorch: ${o.rivals.join(' and ')}, ${full.sides.attention} attention.` : '';
  console.log(`${await machineLine(full.sides, o.rivals.length > 0)}${rivals} Ours: ${o.precision}.`);
  for (const part of o.parts) console.log(`\n${await full[part]()}`);
}

/** Selects PyTorch's faster attention on this machine. */
async function withFasterAttention(sides: Sides, o: FullOptions, config: Blip2Config): Promise<Sides> {
  const work = await writeSteps(o, config, o.batches[0], o.texts[0]);
  const run = { ...baselineRun(o, work, 'lora'), steps: 3 };
  const choices = ['sdpa', 'eager'] as const;
  const speeds: number[] = [];
  for (const attention of choices) {
    const { seconds } = await stepOf({ ...sides, attention }, 'pytorch', run);
    speeds.push(median(seconds.slice(1)));
  }
  const attention = choices[speeds[0] <= speeds[1] ? 0 : 1];
  sides.say(`PyTorch: ${choices.map((name, i) => `${name} ${digits(speeds[i])} s/step`).join(', ')}`);
  return { ...sides, attention };
}

async function writeSteps(o: FullOptions, config: Blip2Config, batch: number, text: number): Promise<string> {
  const file = join(o.dir, `steps-${batch}-${text}.safetensors`);
  await writeWork(file, [syntheticBatch(config, { batch, text, seed: batch + text })]);
  return file;
}

/** PyTorch has bfloat16 weights and computes all parts of every batch. */
function baselineRun(o: FullOptions, work: string, preset: StepPreset): StepRun {
  const steps = o.steps + 1;
  return { model: o.model, work, preset, steps, features: 'none', precision: 'bfloat16' };
}

const PRESET_NAMES = { lora: 'LoRA', qformer: 'Q-Former', 'lora+qformer': 'LoRA and Q-Former' } as const;

class Full {
  constructor(
    readonly sides: Sides,
    private readonly o: FullOptions,
    private readonly config: Blip2Config,
  ) {}

  /** One table for each text length and batch size. */
  async steps(): Promise<string> {
    const tables: string[] = [];
    for (const text of this.o.texts)
      for (const batch of this.o.batches) {
        const rows: string[][] = [];
        for (const preset of this.o.presets) {
          const measured = await takeTurns(await this.competitors(preset, batch, text), this.o.rounds);
          rows.push(...labelled(PRESET_NAMES[preset], stepRows(measured, batch)));
        }
        const head = this.sides.device === 'cuda' ? GPU_STEP_HEAD : STEP_HEAD;
        tables.push(section(`Training step, batch ${batch}, ${text} tokens`, head, rows));
      }
    return tables.join('\n\n');
  }

  /** Steps of five captions of each of four pictures, which share them, beside steps of one caption of each. */
  async shared(): Promise<string> {
    const [pictures, captions, text] = [4, 5, this.o.texts[0]];
    const one = baselineRun(this.o, await writeSteps(this.o, this.config, pictures, text), 'lora');
    const work = join(this.o.dir, `shared-${text}.safetensors`);
    const batch = { batch: pictures * captions, captions, text, seed: text };
    await writeWork(work, [syntheticBatch(this.config, batch)]);
    const { precision } = this.o;
    const runs: [label: string, side: SideName, run: StepRun][] = [
      ['PyTorch, 4 rows', 'pytorch', one],
      ['ours, 4 rows, cold', 'ours', { ...one, precision }],
      ['ours, 4 rows, cached', 'ours', { ...one, precision, features: 'ready' }],
      ['ours, 20 rows of 4 pictures, cold', 'ours', { ...one, work, precision }],
      ['ours, 20 rows of 4 pictures, cached', 'ours', { ...one, work, precision, features: 'ready' }],
    ];
    const measured = await takeTurns(
      runs.map(([label, side, run]) => this.competitor(label, side, run)),
      this.o.rounds,
    );
    const each = (m: (typeof measured)[number]) => m.seconds / m.reports[0].images[0];
    const rows = measured.map((m) => [
      m.label,
      ...[
        digits(m.seconds),
        digits(each(m)),
        times(each(measured[0]) / each(m)),
        gigabytes(m.peak_rss_bytes),
      ],
    ]);
    const head = ['', 's/step', 's/caption', 'speed', 'peak RSS, GB'];
    return section(`LoRA on five captions of a picture, ${text} tokens`, head, rows);
  }

  /** LoRA in the upper layers alone, with and without what the frozen ones compute. */
  async upper(): Promise<string> {
    const { precision, upper, rivals } = this.o;
    const [batch, text] = [this.o.batches[0], this.o.texts[0]];
    const run = { ...baselineRun(this.o, await writeSteps(this.o, this.config, batch, text), 'lora'), upper };
    const side = (name: string, more: Partial<StepRun>, who: SideName) =>
      this.competitor(name, who, { ...run, ...more });
    const measured = await takeTurns(
      [
        ...rivals.map((rival) => side(this.rivalName(rival), { precision: rival }, 'pytorch')),
        side('PyTorch, features made once', { precision: rivals[0], features: 'ready' }, 'pytorch'),
        side('ours, cold', { precision }, 'ours'),
        side('ours, cached', { precision, features: 'ready' }, 'ours'),
      ],
      this.o.rounds,
    );
    const title = `LoRA in the upper ${upper} layers, batch ${batch}, ${text} tokens`;
    return section(title, STEP_HEAD, stepRows(measured, batch));
  }

  private async competitors(
    preset: StepPreset,
    batch: number,
    text: number,
  ): Promise<Competitor<StepReport>[]> {
    const run = baselineRun(this.o, await writeSteps(this.o, this.config, batch, text), preset);
    return [
      ...this.o.rivals.map((precision) =>
        this.competitor(this.rivalName(precision), 'pytorch', { ...run, precision }),
      ),
      this.competitor('ours, cold', 'ours', { ...run, precision: this.o.precision }),
      this.competitor('ours, cached', 'ours', { ...run, precision: this.o.precision, features: 'ready' }),
    ];
  }

  /** With one rival, the documents name its precision. */
  private rivalName(precision: Rival): string {
    return this.o.rivals.length === 1 ? 'PyTorch' : `PyTorch ${precision}`;
  }

  private competitor(label: string, side: SideName, run: StepRun): Competitor<StepReport> {
    return { label, measure: () => stepOf(this.sides, side, run) };
  }

  /** An epoch of image files, which each side decodes itself. */
  async epoch(): Promise<string> {
    const { o } = this;
    const [batch, text] = [o.batches[0], o.texts[0]];
    const pictures = await writePictures(join(o.dir, 'pictures'), o.epochImages);
    const batches = Array.from({ length: Math.floor(o.epochImages / batch) }, (_, i) => {
      const { input_ids, attention_mask, labels, shape, side } = syntheticBatch(this.config, {
        batch,
        text,
        seed: i,
      });
      return {
        input_ids,
        attention_mask,
        labels,
        shape,
        side,
        images: pictures.slice(i * batch, (i + 1) * batch),
      };
    });
    const work = join(o.dir, 'epoch.safetensors');
    await writeWork(work, batches);
    const rows: string[][] = [];
    for (const preset of ['lora', 'qformer'] as const)
      rows.push(...(await this.epochRows(preset, work, batches.length)));
    const title = `An epoch of ${batches.length * batch} pictures, batch ${batch}, ${text} tokens`;
    return section(title, ['', 'seconds', 's/image', 'speed'], rows);
  }

  private async epochRows(preset: StepPreset, work: string, steps: number): Promise<string[][]> {
    const run = { ...baselineRun(this.o, work, preset), steps };
    const baseline = await stepOf(this.sides, 'pytorch', run);
    const ours = await stepOf(this.sides, 'ours', {
      ...run,
      ...{ precision: this.o.precision, features: 'ready' },
    });
    const images = total(baseline.images);
    const later = total(ours.seconds);
    const pairs: [string, number][] = [
      ['PyTorch, every epoch', total(baseline.seconds)],
      ['ours, first epoch, making the cache', ours.features_seconds + later],
      ['ours, later epochs', later],
    ];
    return pairs.map(([label, seconds]) => [
      `${PRESET_NAMES[preset]}: ${label}`,
      ...[digits(seconds), digits(seconds / images), times(total(baseline.seconds) / seconds)],
    ]);
  }

  async captions(): Promise<string> {
    const rows: string[][] = [];
    for (const beams of this.o.beams)
      for (const batch of [1, 8]) {
        const work = join(this.o.dir, `captions-${batch}.safetensors`);
        await writeWork(work, [syntheticBatch(this.config, { batch, text: 4, seed: batch, prompt: true })]);
        const run = {
          model: this.o.model,
          work,
          beams,
          newTokens: 20,
          repeat: 3,
        } as const;
        const caption = (label: string, side: SideName, precision: Precision) => ({
          label,
          measure: () => captionOf(this.sides, side, { ...run, precision }),
        });
        const measured = await takeTurns(
          [
            ...this.o.rivals.map((rival) => caption(this.rivalName(rival), 'pytorch', rival)),
            caption('ours', 'ours', this.o.precision),
          ],
          this.o.rounds,
        );
        const ours = measured.at(-1)!;
        rows.push([
          `${beams === 1 ? 'greedy' : `${beams} beams`}, batch ${batch}`,
          ...measured.map(({ seconds }) => digits(seconds / batch)),
          ...measured.slice(0, -1).map(({ seconds }) => times(seconds / ours.seconds)),
          ...measured.map(({ memory_bytes }) => gigabytes(memory_bytes)),
        ]);
      }
    return section('Captions of 20 tokens', this.captionHead(), rows);
  }

  private captionHead(): string[] {
    const rivals = this.o.rivals.map((rival) => this.rivalName(rival));
    const speeds = rivals.length === 1 ? ['speed'] : rivals.map((name) => `speed, to ${name}`);
    const names = [...rivals, 'ours'];
    return [
      '',
      ...names.map((name) => `s/image, ${name}`),
      ...speeds,
      ...names.map((name) => `${this.sides.device === 'cuda' ? 'GPU memory' : 'peak RSS'}, GB, ${name}`),
    ];
  }

  async kernels(): Promise<string> {
    const work = await writeSteps(this.o, this.config, this.o.batches[0], this.o.texts[0]);
    const tables: string[] = [];
    for (const preset of ['lora', 'qformer'] as const)
      for (const features of ['none', 'ready'] as const) {
        const run = {
          ...baselineRun(this.o, work, preset),
          features,
          precision: this.o.precision,
          kernels: true,
        };
        const title = `A step by kernel: ${PRESET_NAMES[preset]}, ${features === 'none' ? 'cold' : 'cached'}`;
        tables.push(`### ${title}\n\n${await kernelTable(this.sides, run)}`);
      }
    return tables.join('\n\n');
  }

  async busy(): Promise<string> {
    const all = await this.competitors('lora', this.o.batches[0], this.o.texts[0]);
    const rows: string[][] = [];
    for (const competitor of [all[0], all.at(-2)!]) {
      const [alone] = await takeTurns([competitor], this.o.rounds);
      const [beside] = await besideBusyProcess(() => takeTurns([competitor], this.o.rounds));
      const speeds = [digits(alone.seconds), digits(beside.seconds), times(beside.seconds / alone.seconds)];
      rows.push([competitor.label, ...speeds, gigabytes(beside.peak_rss_bytes)]);
    }
    const head = ['', 'alone, s/step', 'beside it, s/step', 'slower', 'peak RSS, GB'];
    return section('Beside a third busy process', head, rows);
  }
}

const labelled = (what: string, rows: string[][]) =>
  rows.map(([label, ...cells]) => [`${what}: ${label}`, ...cells]);

const total = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);

function section(title: string, head: readonly string[], rows: string[][]): string {
  return `### ${title}\n\n${markdownTable(head, rows)}`;
}
