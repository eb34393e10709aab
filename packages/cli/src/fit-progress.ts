/** Progress lines of `blip2 fit`. */
import { basename } from 'node:path';
import type { FitHooks, TrainingSample } from '@blip2/trainer';
import { CAPTION_FIGURES, DEGENERATION, EXACT, percent, times100 } from '@blip2/trainer';
import { paint } from './printable';
import type { Ui } from './ui';
import { seconds } from './ui';

type Phase = Parameters<NonNullable<FitHooks['onPhase']>>[0];
type Step = Parameters<NonNullable<FitHooks['onProgress']>>[0];

export class FitProgress {
  private rate: number | undefined;

  constructor(private readonly ui: Ui) {}

  phase({ name, done, total }: Phase): void {
    const share = total > 0 ? done / total : 1;
    this.ui.progress(
      name,
      `${name}: ${(100 * share).toFixed(0).padStart(3)} %`,
      done >= total && !this.ui.io.terminal,
    );
  }

  step({ step, totalSteps, epoch, loss, images_per_second, eta_seconds }: Step): void {
    const parts = [
      `step ${String(step).padStart(String(totalSteps).length)}/${totalSteps}`,
      `epoch ${epoch.toFixed(2)}`,
      `loss ${loss.toFixed(4)}`,
      ...(this.rate === undefined ? [] : [`lr ${this.rate.toExponential(2)}`]),
      `${images_per_second.toFixed(images_per_second < 10 ? 1 : 0)} images/s`,
      `ETA ${seconds(eta_seconds)}`,
    ];
    this.ui.progress('training', parts.join('  '), step === totalSteps);
  }

  /** Prints the texts that the model has for the same few images now. */
  samples(rows: TrainingSample[]): void {
    const lines = rows.map(({ image, question, reference, text }) => {
      const right = text.trim() === reference.trim();
      const prefix = `  ${paint.dim(`${basename(image)}${question === undefined ? '' : ` ${question}`}:`)} `;
      return `${prefix}${text || '(nothing)'}${right ? paint.green(' ✓') : paint.dim(` – expected: ${reference}`)}`;
    });
    const when = rows[0]?.step === 0 ? 'before training' : `after step ${rows[0]?.step}`;
    this.ui.log([`${when}:`, ...lines].join('\n'));
  }

  /** Keeps the learning rate for the next line; prints an evaluation's loss and shares of correct answers. */
  metrics(row: Record<string, unknown>): void {
    if (typeof row.learning_rate === 'number') this.rate = row.learning_rate;
    if (typeof row.eval_loss !== 'number') return;
    const shares = Object.entries(row).flatMap(([key, value]) => {
      const name = /^eval_(?!loss$|seconds$)(.+)$/.exec(key)?.[1];
      if (!name || typeof value !== 'number' || name in DEGENERATION) return [];
      if (name === 'cider_d') return [`CIDEr-D ${times100(value)}`];
      return name in CAPTION_FIGURES ? [] : [`${titleOf(name)} ${percent(value)}`];
    });
    this.ui.log([`step ${row.step}: validation loss ${row.eval_loss.toFixed(4)}`, ...shares].join('  '));
  }
}

/** `exact match`, `which colour is it?`, or the name of a part. */
function titleOf(name: string): string {
  if (name === 'exact') return EXACT;
  return name.replace(/^accuracy_(.+)$/, (_, type: string) => type.replaceAll('_', ' '));
}
