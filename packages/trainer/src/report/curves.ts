/** The curves of a run, from metrics.jsonl. */
import type { FitConfig } from '../config';
import { partNames } from '../evaluation/score';
import type { MetricRow } from '../run/logs';
import type { Chart, Series } from './chart';
import { chart, COLOURS } from './chart';
import type { Html } from './html';
import { html } from './html';
import type { Run } from './run-files';

export function curvesSection({ metrics, config }: Run): Html | undefined {
  const charts = [lossChart(metrics), ...scoreCharts(metrics, config), ...stepCharts(metrics)];
  const drawn = charts.map(chart).filter((one) => one !== undefined);
  if (drawn.length === 0) return undefined;
  return html`<section id="curves">
    <h2>Curves</h2>
    <p class="soft scripted">
      Point at a chart for its values. Drag to zoom, double-click to see all of it again.
    </p>
    <div class="charts">${drawn}</div>
  </section>`;
}

/** @param factor 100 for shares and caption metrics */
export function pointsOf(metrics: readonly MetricRow[], name: string, factor = 1): Series['points'] {
  return metrics.flatMap(({ step, [name]: y }) =>
    typeof y === 'number' ? [{ x: step, y: factor * y }] : [],
  );
}

const line = (name: string, points: Series['points']): Series => ({ name, look: 'line', points });

function lossChart(metrics: MetricRow[]): Chart {
  const validation: Series = { name: 'validation', look: 'marks', points: pointsOf(metrics, 'eval_loss') };
  const series = [line('training', pointsOf(metrics, 'loss')), validation];
  return { title: 'Loss', series, log: true, wide: true };
}

/** What each step was like. */
function stepCharts(metrics: MetricRow[]): Chart[] {
  const norm = line('before clipping', pointsOf(metrics, 'grad_norm'));
  return [
    { title: 'Gradient norm', series: [norm], log: true },
    { title: 'Learning rate', series: [line('rate', pointsOf(metrics, 'learning_rate'))] },
    { title: 'Speed', series: [line('images/s', pointsOf(metrics, 'images_per_second'))] },
  ];
}

/** Scores of generated texts, and of each part or question type. */
function scoreCharts(metrics: MetricRow[], config: FitConfig): Chart[] {
  const marks = (names: [name: string, field: string][]): Series[] =>
    names.map(([name, field]) => ({ name, look: 'marks', points: pointsOf(metrics, field, 100) }));
  const share = { digits: 1, suffix: ' %' };
  const parts = partNames(config.parts_pattern).map((name): [string, string] => [name, `eval_${name}`]);
  const exact = config.task === 'vqa' || parts.length > 0;
  const types = fieldsOf(metrics).flatMap((field): [string, string][] => {
    const type = /^eval_accuracy_(.+)$/.exec(field)?.[1];
    return type === undefined ? [] : [[type.replaceAll('_', ' '), field]];
  });
  const recall: Chart = {
    title: 'Recall',
    series: marks([
      ['mean', 'eval_r_mean'],
      ['text R@1', 'eval_txt_r1'],
      ['image R@1', 'eval_img_r1'],
    ]),
    ...share,
  };
  const charts: Chart[] = [
    {
      title: 'Accuracy',
      series: marks([['all questions', 'eval_accuracy'], ...types.slice(0, COLOURS - 1)]),
      ...share,
    },
    {
      title: 'Exact match',
      series: exact ? marks([['whole caption', 'eval_exact'], ...parts.slice(0, COLOURS - 1)]) : [],
      ...share,
    },
    { title: 'CIDEr-D', series: marks([['validation', 'eval_cider_d']]), digits: 1 },
    {
      title: 'Other caption metrics',
      series: marks([
        ['BLEU-4', 'eval_bleu_4'],
        ['ROUGE-L', 'eval_rouge_l'],
        ['METEOR', 'eval_meteor'],
      ]),
      digits: 1,
    },
  ];
  return config.task === 'vqa' ? charts.slice(0, 1) : [...charts.slice(1), recall];
}

const fieldsOf = (metrics: readonly MetricRow[]) => [...new Set(metrics.flatMap((row) => Object.keys(row)))];
