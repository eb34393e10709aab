/**
 * The verdict on a run, from its results alone. For each other condition (before training, blank image, shuffled images)
 * the differences of the scores, picture by picture, have a 95 % interval. "Better" means that all of it is above 0, "perhaps
 * better" that some of it is, up to a large difference: a fifth of the score, at least 5 points (25 of CIDEr-D).
 * The rules, of which the first that fits wins:
 *
 * 1. no held-out pictures, or fewer than six                             → unclear
 * 2. not better than before training, and the training loss rose         → diverged
 * 3. perhaps better than before training                                 → unclear
 * 4. not better than before training                                     → not learned
 * 5. not better than with blank or shuffled images                       → ignores the picture
 * 6. perhaps better than with one of them; or before training is unknown → unclear
 * 7. everything else                                                     → learned
 */
import type { Interval } from './bootstrap';
import { bootstrap } from './bootstrap';
import type { Conditions, Confusion, Evidence, Group, Headline } from './evidence';
import { percent, times100 } from './numbers';
import type { Overfitting } from './overfitting';
import { EXACT } from './results';

export type Outcome = 'learned' | 'not learned' | 'ignores the picture' | 'unclear' | 'diverged';

/** What the verdict is made from. */
export interface VerdictInput {
  /** undefined without held-out pictures */
  evidence?: Evidence;
  steps: number;
  /** training loss of the first and the last row of metrics.jsonl */
  loss?: { first: number; last: number };
  overfitting?: Overfitting;
}

export interface Verdict {
  outcome: Outcome;
  headline?: Headline;
  /** held-out pictures */
  pictures: number;
  score?: Interval;
  /** mean scores of the other conditions */
  others: Omit<Conditions<number>, 'model'>;
  /** groups far below the others, or not better than with shuffled images */
  weak: Group[];
  confusions: Confusion[];
  /** absent if there is none */
  overfitting?: Overfitting;
  /** one sentence each: did it learn, does it use the picture, what is weak, does it overfit */
  sentences: string[];
}

export const FEWEST_PICTURES = 6;
/** A large difference: a share of the score, and the least. */
const LARGE = { share: 0.2, least: { exact: 0.05, accuracy: 0.05, cider_d: 0.25, recall: 0.05 } };
/** A confusion is named from so many times on. */
const OFTEN = 2;

export function verdict(input: VerdictInput): Verdict {
  const { evidence } = input;
  if (!evidence) return unseen(input);
  const { headline, pictures, groups, confusions } = evidence;
  const { model, before, blank, shuffled } = pictures;
  const difference = (other: number[] | undefined) =>
    other && bootstrap(model.map((score, i) => score - other[i]));
  const score = bootstrap(model);
  const gains = { before: difference(before), blank: difference(blank), shuffled: difference(shuffled) };
  const large = Math.max(LARGE.share * score.mean, LARGE.least[headline]);
  const outcome = model.length < FEWEST_PICTURES ? 'unclear' : outcomeOf(input, gains, large);
  const others = {
    ...(before && { before: mean(before) }),
    ...(blank && { blank: mean(blank) }),
    ...(shuffled && { shuffled: mean(shuffled) }),
  };
  const weak = weakGroups(groups);
  const often = confusions.filter(({ times }) => times >= OFTEN);
  const { overfitting } = input;
  const scored = { outcome, headline, pictures: model.length, score, others, weak, confusions: often };
  const made = { ...scored, ...(overfitting && { overfitting }) };
  return { ...made, sentences: sentencesOf(made, gains.before, input) };
}

type Gains = Omit<Conditions<Interval>, 'model'>;

function outcomeOf({ loss }: VerdictInput, { before, blank, shuffled }: Gains, large: number): Outcome {
  const better = (gain: Interval) => gain.low > 0;
  const perhaps = (gain: Interval) => !better(gain) && gain.high >= large;
  if (before && !better(before)) {
    if (loss && !(loss.last < loss.first)) return 'diverged';
    return perhaps(before) ? 'unclear' : 'not learned';
  }
  const without = [blank, shuffled].filter((gain) => gain !== undefined);
  if (without.some((gain) => !better(gain) && !perhaps(gain))) return 'ignores the picture';
  return before && without.every(better) ? 'learned' : 'unclear';
}

/** Groups not better than with shuffled images, and those whose score is at most half of the best group's. */
function weakGroups(groups: Group[]): Group[] {
  const best = Math.max(...groups.map(({ model }) => model));
  const isWeak = ({ model, shuffled }: Group) =>
    model <= best / 2 || (shuffled !== undefined && model <= shuffled);
  return groups.filter(isWeak).sort((a, b) => a.model - b.model);
}

function unseen({ steps, overfitting }: VerdictInput): Verdict {
  const sentences = [
    `cannot tell whether it learned: no held-out pictures were scored (${steps} steps)`,
    ...overfittingSentence(overfitting),
  ];
  const nothing = { outcome: 'unclear' as const, pictures: 0, others: {}, weak: [], confusions: [] };
  return { ...nothing, ...(overfitting && { overfitting }), sentences };
}

/** The name of the score, and how it is printed. */
export const HEADLINES: Record<Headline, { name: string; show: (value: number) => string }> = {
  exact: { name: EXACT, show: percent },
  accuracy: { name: 'accuracy', show: percent },
  cider_d: { name: 'CIDEr-D', show: times100 },
  recall: { name: 'recall at 1', show: percent },
};

type Made = Omit<Verdict, 'sentences'> & { headline: Headline; score: Interval };

function sentencesOf(made: Made, gain: Interval | undefined, { loss, steps }: VerdictInput): string[] {
  const { outcome, headline, score, others, pictures } = made;
  const { name, show } = HEADLINES[headline];
  const range = `95 % interval ${show(score.low)} to ${show(score.high)}, ${pictures} held-out picture${pictures === 1 ? '' : 's'}`;
  const from =
    others.before === undefined ? show(score.mean) : `${show(others.before)} → ${show(score.mean)}`;
  const course =
    loss && `; training loss ${loss.first.toPrecision(3)} → ${loss.last.toPrecision(3)} in ${steps} steps`;
  const first = `${opening(outcome, gain)}: ${name} ${from} (${range})${outcome === 'learned' ? '' : (course ?? '')}`;
  return [
    first,
    ...pictureSentence(made, show),
    ...weakSentences(made, show),
    ...overfittingSentence(made.overfitting),
  ];
}

/** @param gain the difference to the score before training */
function opening(outcome: Outcome, gain: Interval | undefined): string {
  if (outcome !== 'unclear' || !gain || !(gain.low > 0)) return OPENINGS[outcome];
  return 'learned new texts, but these pictures are too few to tell whether it uses the picture';
}

const OPENINGS: Record<Outcome, string> = {
  learned: 'learned',
  'not learned': 'did not learn',
  'ignores the picture': 'learned the texts but not to use the picture',
  unclear: 'cannot tell whether it learned',
  diverged: 'diverged',
};

const PICTURE_OPENINGS: Partial<Record<Outcome, string>> = {
  learned: 'uses the picture',
  'ignores the picture': 'does not use the picture',
};

function pictureSentence({ outcome, score, others }: Made, show: (value: number) => string): string[] {
  const { blank, shuffled } = others;
  const against = [
    ...(blank === undefined ? [] : [`${show(blank)} with a blank image`]),
    ...(shuffled === undefined ? [] : [`${show(shuffled)} with shuffled images`]),
  ].join(', ');
  if (!against) return [];
  const opening = PICTURE_OPENINGS[outcome] ?? 'use of the picture';
  return [`${opening}: ${show(score.mean)}, against ${against}`];
}

function weakSentences({ weak, confusions, headline }: Made, show: (value: number) => string): string[] {
  const inGroup = (value: number) => (headline === 'cider_d' ? HEADLINES.exact.show(value) : show(value));
  const groups = weak.map(({ name, model, shuffled }) => {
    const other = shuffled === undefined ? '' : ` (${inGroup(shuffled)} with shuffled images)`;
    return `${name} ${inGroup(model)}${other}`;
  });
  const mixed = confusions.map(({ expected, found, times }) => `"${found}" for "${expected}" ${times} times`);
  return [
    ...(groups.length ? [`weak: ${groups.slice(0, 3).join('; ')}`] : []),
    ...(mixed.length ? [`most often confused: ${mixed.slice(0, 3).join(', ')}`] : []),
  ];
}

function overfittingSentence(found: Overfitting | undefined): string[] {
  if (!found) return [];
  const { step, validation, training } = found;
  const course = (from: number, to: number) => `${from.toPrecision(3)} → ${to.toPrecision(3)}`;
  const losses = `validation loss ${course(validation.lowest, validation.last)}, training loss ${course(training.then, training.last)}`;
  return [`overfits after step ${step}: ${losses}; more pictures would help`];
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}
