/**
 * Settings for data that nobody has tuned: what is not given is chosen from the number of pictures, the preset and the
 * model. The rules are measured on the small base (docs/training.md) and agree with the recipes for the full-size model.
 */
import type { FitConfig } from '../config';
import { defaultConfig, PRESETS } from '../config';
import { trainOptions } from '../model/parts';
import { recommendedPresets } from '../plan/advice';
import { RETRIEVAL_PRESET } from '../retrieval/presets';
import type { Facts } from './facts';

export type Raw = Record<string, unknown>;

/** One choice, for people: `what` gives the values and the reason, `option` changes it. */
export interface Choice {
  name: string;
  what: string;
  option: string;
}

export interface Chosen {
  settings: Raw;
  choices: Choice[];
}

/** Fewer pictures than this are all needed for training. */
export const FEWEST_TO_SPLIT = 20;
/** From here on, validation and test each get a tenth of the pictures, and at least ten. */
const ENOUGH_FOR_TEST = 60;
const FEWEST_OF_TEST = 10;
/** With fewer held-out pictures, even a result that is better on each of them may be chance: 2 × 0.5⁶ = 0.03. */
export const FEWEST_HELD_OUT = 6;
/** Optimizer steps of the smallest run. Measured: with 300 steps the small base learns 48 pictures, with 12 nothing. */
export const FEWEST_STEPS = 300;
const SMALL_DATA = 500;
const LARGE_DATA = 10_000;
/** Texts generated at each evaluation: the interval of a share of 300 is at most ±6 points. */
const MOST_EVALUATED = 300;
/** Width of the model for which the presets' learning rates are made: OPT 2.7B, or the Q-Former, which is BERT base. */
const FULL_WIDTH: Record<Facts['objective'], number> = { captioning: 2560, retrieval: 768 };
/** Rows of a batch, for small data and others. Retrieval compares the pairs of a batch with each other. */
const BATCH: Record<Facts['objective'], readonly [number, number]> = {
  captioning: [8, 16],
  retrieval: [16, 32],
};
/** The rate rises with 1 / width (Yang et al., Tensor Programs V, arXiv:2203.03466), up to this factor. */
const MOST_SCALING = 5;
/** Share of the free disk that cached features may take. */
const DISK_SHARE = 0.5;

/** The task of the rows, unless it is given. Questions and captions together are captions. */
export function chooseTask(raw: Raw, facts: Facts): Chosen {
  if (given(raw.task) || !facts.questions) return nothing;
  if (!facts.captions) return one({ task: 'vqa' }, 'task', 'vqa, because the rows have questions', '--task');
  const what = 'caption; the rows also have questions, which --task vqa learns instead';
  return one({ task: 'caption' }, 'task', what, '--task');
}

/** `raw` with every setting that can be chosen; given settings always stay. */
export function chooseSettings(raw: Raw, facts: Facts): Chosen {
  const rules = [
    chooseTask,
    chooseSplits,
    choosePreset,
    chooseSteps,
    chooseRate,
    chooseEvaluation,
    chooseCache,
  ];
  return rules.reduce<Chosen>(
    ({ settings, choices }, rule) => {
      const next = rule(settings, facts);
      return { settings: { ...settings, ...next.settings }, choices: [...choices, ...next.choices] };
    },
    { settings: raw, choices: [] },
  );
}

const given = (value: unknown) => value !== undefined && value !== null;
const nothing: Chosen = { settings: {}, choices: [] };
const one = (settings: Raw, name: string, what: string, option: string): Chosen => ({
  settings,
  choices: [{ name, what, option }],
});

/** From 60 pictures a tenth, at least ten, for validation and for the test; from 20 a fifth, at least six, for validation only. */
function chooseSplits(raw: Raw, { splits, pictures }: Facts): Chosen {
  const { split_fractions, eval_data, test_data, seed = 0 } = raw;
  if ([split_fractions, eval_data, test_data].some(given) || splits.length > 0 || pictures < FEWEST_TO_SPLIT)
    return nothing;
  const option = '--split-fractions';
  const drawn = `of ${count(pictures)} pictures, drawn with seed ${String(seed)}`;
  if (pictures >= ENOUGH_FOR_TEST) {
    const each = Math.max(FEWEST_OF_TEST, Math.round(pictures / 10));
    const share = Number((each / pictures).toFixed(3));
    const what = `${count(each)} for validation and ${count(each)} for the test ${drawn}`;
    return one({ split_fractions: { validation: share, test: share } }, 'splits', what, option);
  }
  const kept = Math.max(FEWEST_HELD_OUT, Math.round(pictures / 5));
  const what = `${kept} for validation ${drawn}; too few to hold out others for a test`;
  return one(
    { split_fractions: { validation: Number((kept / pictures).toFixed(3)) } },
    'splits',
    what,
    option,
  );
}

/** Rows to train on and to evaluate, after the splits. */
function sizes({ split_fractions, train_limit }: Raw, { rows, heldOut }: Facts) {
  const { validation = 0, test = 0 } = (split_fractions ?? {}) as NonNullable<FitConfig['split_fractions']>;
  const train = Math.max(1, Math.round(rows * (1 - validation - test)));
  return {
    train: typeof train_limit === 'number' ? Math.min(train, train_limit) : train,
    heldOut: Math.max(heldOut, Math.round(rows * Math.max(validation, test))),
  };
}

/** The default preset, beside the recommended one: `fit` does not measure whether that fits the machine. */
function choosePreset(raw: Raw, facts: Facts): Chosen {
  if (given(raw.preset)) return nothing;
  if (facts.objective === 'retrieval') {
    const what = `${RETRIEVAL_PRESET}: all but the vision tower, as in BLIP-2's first stage`;
    return one({ preset: RETRIEVAL_PRESET }, 'preset', what, '--preset');
  }
  const { preset } = defaultConfig();
  const { train } = sizes(raw, facts);
  const [best] = recommendedPresets({ rows: train, width: facts.width }).order;
  const what =
    best === preset
      ? `${preset}, which is recommended for ${count(train)} rows`
      : `${preset}, the default; ${best} is recommended for ${count(train)} rows if npx blip2 plan finds that it fits (docs/which-layers.md)`;
  return one({}, 'preset', what, '--preset');
}

/** At least 300 steps; from 900 rows three epochs, from 10,000 one. */
function chooseSteps(raw: Raw, facts: Facts): Chosen {
  const { train } = sizes(raw, facts);
  const [few, many] = BATCH[facts.objective];
  const batch = given(raw.per_device_train_batch_size)
    ? (raw.per_device_train_batch_size as number)
    : Math.min(train, train < SMALL_DATA ? few : many);
  const settings: Raw = { ...defaultConfig(), ...raw, per_device_train_batch_size: batch };
  const { perEpoch } = trainOptions(settings as FitConfig, train, 1);
  const epochs = Math.max(train >= LARGE_DATA ? 1 : 3, Math.ceil(FEWEST_STEPS / perEpoch));
  const chosen = {
    per_device_train_batch_size: batch,
    ...(!given(raw.num_train_epochs) && !given(raw.max_steps) && { num_train_epochs: epochs }),
  };
  const { totalSteps } = trainOptions({ ...settings, ...chosen } as FitConfig, train, 1);
  const { warmup_ratio, warmup_steps } = raw;
  // the optimizer's moments need some steps before the full rate: 30 of 300, and a share of longer runs
  const warmup =
    given(warmup_ratio) || given(warmup_steps) ? {} : { warmup_ratio: totalSteps < 600 ? 0.1 : 0.05 };
  const every = (times: number) => Math.max(1, Math.ceil(totalSteps / times));
  const intervals = {
    logging_steps: Math.min(50, every(100)),
    eval_steps: every(10),
    save_steps: every(10),
    sample_steps: every(4),
  };
  const passes = Number((totalSteps / perEpoch).toFixed(2));
  const what = `${count(totalSteps)} in batches of ${batch}: ${count(passes)} epoch${passes === 1 ? '' : 's'} of ${count(train)} rows`;
  const { logging_steps, eval_steps, sample_steps } = { ...intervals, ...raw };
  const often = `steps between rows of metrics: ${logging_steps}, evaluations: ${eval_steps}, sample texts: ${sample_steps}`;
  return {
    settings: unless(raw, { ...chosen, ...warmup, ...intervals }),
    choices: [
      { name: 'steps', what, option: '--epochs, --batch-size' },
      { name: 'intervals', what: often, option: '--set eval_steps=N' },
    ],
  };
}

/** The preset's rate, which is for OPT 2.7B; a narrower language model takes a higher one. */
function chooseRate(raw: Raw, { objective, width = FULL_WIDTH[objective] }: Facts): Chosen {
  if (given(raw.learning_rate)) return nothing;
  const preset = PRESETS.find((name) => name === raw.preset) ?? 'lora';
  const scale = Math.min(MOST_SCALING, Math.max(1, FULL_WIDTH[objective] / width));
  if (scale === 1) return nothing;
  const learning_rate = Number((defaultConfig(preset).learning_rate * scale).toPrecision(2));
  const what = `${learning_rate}, ${Number(scale.toFixed(1))} × the preset's, because the model is narrow (${width})`;
  return one({ learning_rate }, 'learning rate', what, '--lr');
}

/** Texts or recall of the held-out pictures choose the best weights; the final table has all baselines. */
function chooseEvaluation(raw: Raw, facts: Facts): Chosen {
  const { task, eval_data, test_data, split_fractions, eval_limit } = raw;
  const validated = given(eval_data) || facts.splits.includes('validation') || hasValidation(split_fractions);
  const held = validated || given(test_data) || facts.splits.includes('test') || given(split_fractions);
  if (!held) return nothing;
  const { heldOut } = sizes(raw, facts);
  const generates = facts.objective === 'captioning';
  const metric = !generates ? 'r_mean' : task === 'vqa' ? 'accuracy' : 'cider_d';
  const byScore = validated && !(generates && raw.predict_with_generate === false);
  const settings = unless(raw, {
    controls: true,
    ...(byScore && {
      ...(generates && { predict_with_generate: true }),
      metric_for_best_model: metric,
    }),
    ...(heldOut > MOST_EVALUATED && { eval_limit: MOST_EVALUATED }),
  });
  const limited =
    settings.eval_limit === undefined || given(eval_limit)
      ? ''
      : `, ${MOST_EVALUATED} pictures of each split`;
  const best = (settings.metric_for_best_model as string | undefined) ?? raw.metric_for_best_model;
  if (!byScore || best !== metric) return { settings, choices: [] };
  const what = `the best ${METRICS[metric]} chooses the weights${limited}`;
  return one(settings, 'evaluation', what, '--set metric_for_best_model=loss');
}

const METRICS = {
  r_mean: 'mean recall',
  accuracy: 'accuracy of generated texts',
  cider_d: 'CIDEr-D of generated texts',
} as const;

const hasValidation = (fractions: unknown) =>
  given(fractions) && (fractions as { validation?: number }).validation !== undefined;

/** Half of the free disk. */
function chooseCache(raw: Raw, { free }: Facts): Chosen {
  if (given(raw.cache_limit_mb) || raw.cache_features === false || !Number.isFinite(free)) return nothing;
  const cache_limit_mb = Math.floor((DISK_SHARE * free) / 2 ** 20);
  const what = `at most ${count(Math.round(cache_limit_mb / 1024))} GiB, half of the free disk`;
  return one({ cache_limit_mb }, 'feature cache', what, '--set cache_limit_mb=N');
}

/** The settings that are not given. */
function unless(raw: Raw, settings: Raw): Raw {
  return Object.fromEntries(Object.entries(settings).filter(([key]) => !given(raw[key])));
}

const count = (n: number) => n.toLocaleString('en');
