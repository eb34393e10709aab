/** The check of the recommendation: on data that no rule was made from, is the recommended preset as good as the best one? */
import { recommendedPresets } from '@blip2/trainer';
import { DATA } from './data';
import { leastDifference, mean } from './statistics';
import { compared } from './summary';
import type { Group, Summary } from './summary';

/** Of the language model of models/blip2-emoji-mini. */
const WIDTH = 192;

export interface Check {
  size: number;
  recommended: Group;
  best: Group;
  /** of their mean scores */
  difference: number;
  /** the difference that could be chance */
  margin: number;
}

export function checksOf({ groups }: Summary): Check[] {
  return Object.values(DATA)
    .filter(({ tuned }) => !tuned)
    .flatMap(({ name, sizes }) =>
      sizes.flatMap((size) =>
        checkOf(
          compared(
            groups.filter(({ data }) => data === name),
            size,
          ),
        ),
      ),
    );
}

function checkOf(groups: readonly Group[]): Check[] {
  if (groups.length < 2) return [];
  const [{ size }] = groups;
  const [preset] = recommendedPresets({ rows: size, width: WIDTH }).order;
  const recommended = groups.find(({ variant }) => variant === preset);
  if (!recommended)
    throw new Error(
      `check: expected a measurement of ${preset}, the recommended preset for ${size} pictures`,
    );
  const best = groups.reduce((a, b) => (mean(b.score) > mean(a.score) ? b : a));
  const difference = mean(best.score) - mean(recommended.score);
  return [{ size, recommended, best, difference, margin: leastDifference(groups.map(({ score }) => score)) }];
}
