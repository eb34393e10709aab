/** What to do after a run: one sentence and one command. */
import { join } from 'node:path';
import type { Example } from '@blip2/data-captions';
import type { PresetName } from '@blip2/peft-lora';
import type { FitConfig } from '../config';
import type { Verdict } from './verdict';

export interface NextStep {
  why: string;
  /** arguments of `npx blip2`, for the folder that the run was started in */
  command: string[];
}

export interface Finished {
  config: FitConfig;
  /** the preset that `plan` recommends for this model and number of rows */
  recommended: PresetName;
  /** a picture to try the model on */
  example: Example;
  /** the options that name the result */
  weights: string[];
}

/** @param tryIt the command that tries the result on a picture */
export function nextStep(
  { outcome, pictures, overfitting }: Verdict,
  run: Finished,
  tryIt: (run: Finished) => string[],
): NextStep {
  const { config, recommended } = run;
  const again = (name: string, ...changes: string[]) => [
    ...['fit', join(config.output_dir, 'config.yaml'), ...changes],
    ...['--output', `${config.output_dir}-${name}`],
  ];
  switch (outcome) {
    case 'learned':
      return { why: 'try it on a picture', command: tryIt(run) };
    case 'diverged': {
      const rate = Number((config.learning_rate / 5).toPrecision(2));
      return { why: 'train with a lower learning rate', command: again('slower', '--lr', String(rate)) };
    }
    case 'not learned':
      if (overfitting) return morePictures(config);
      return { why: 'train longer', command: again('longer', ...longer(config)) };
    case 'ignores the picture':
      if (overfitting) return morePictures(config);
      if (config.preset === 'lora' && recommended !== 'lora')
        return {
          why: 'train the parts that read the picture as well; with this many rows it is better (docs/which-layers.md)',
          command: again(recommended, '--preset', recommended),
        };
      return {
        why: 'train longer; if that does not help, add pictures',
        command: again('longer', ...longer(config)),
      };
    case 'unclear':
      return unclear(config, pictures, again);
  }
}

function unclear(
  { data, split_fractions }: FitConfig,
  pictures: number,
  again: (name: string, ...changes: string[]) => string[],
): NextStep {
  const held = split_fractions?.test ?? split_fractions?.validation;
  if (pictures === 0 || held === undefined || held > 0.25)
    return { why: 'add pictures, some of them held out, and check them', command: ['data', 'check', data] };
  const shares = `validation=${split_fractions?.validation ?? 0.1},test=${Number((2 * held).toFixed(3))}`;
  return {
    why: 'hold out more pictures, or add some',
    command: again('more-test', '--split-fractions', shares),
  };
}

const morePictures = ({ data }: FitConfig): NextStep => ({
  why: 'add pictures, since longer training only memorises these, and check them',
  command: ['data', 'check', data],
});

function longer({ max_steps, num_train_epochs }: FitConfig): string[] {
  if (max_steps !== undefined) return ['--max-steps', String(3 * max_steps)];
  return ['--epochs', String(3 * num_train_epochs)];
}
