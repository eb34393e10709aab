/** Why a run cannot be expected to learn, or to show that it did, before it starts. */
import type { FitConfig } from '../config';
import { FEWEST_HELD_OUT, FEWEST_STEPS, FEWEST_TO_SPLIT } from './choose';

export interface RunSize {
  steps: number;
  stepsPerEpoch: number;
  /** different pictures of each split */
  train: number;
  validation?: number;
  final?: number;
}

/** Fewer steps than this have not been seen to teach a model new texts. */
const TOO_FEW_STEPS = 100;

/** One sentence for each reason, with what to do about it. */
export function unlikelyToLearn(config: Pick<FitConfig, 'max_steps'>, size: RunSize): string[] {
  const { steps, stepsPerEpoch, train, validation, final } = size;
  const reasons: string[] = [];
  if (steps < TOO_FEW_STEPS) {
    const more =
      config.max_steps === undefined
        ? `--epochs ${Math.ceil(FEWEST_STEPS / stepsPerEpoch)}`
        : `--max-steps ${FEWEST_STEPS}`;
    reasons.push(
      `${plural(steps, 'optimizer step')}: too few to learn new texts; ${more} makes about ${FEWEST_STEPS}`,
    );
  }
  if (train < FEWEST_TO_SPLIT)
    reasons.push(
      `${plural(train, 'picture')} for training: the model can learn ${train === 1 ? 'it' : 'these'} by heart; do not expect right texts for others. Add pictures: ` +
        'some hundreds are usual',
    );
  if (validation === undefined && final === undefined)
    reasons.push(
      'no held-out pictures: nothing will show whether the model learned. Add pictures (from ' +
        `${FEWEST_TO_SPLIT} on, some are held out), or a validation split`,
    );
  else if (final !== undefined && final < FEWEST_HELD_OUT)
    reasons.push(
      `${plural(final, 'held-out picture')}: too few to tell a good result from luck; hold out at least ${FEWEST_HELD_OUT} (--split-fractions)`,
    );
  return reasons;
}

const plural = (n: number, what: string) => `${n.toLocaleString('en')} ${what}${n === 1 ? '' : 's'}`;
