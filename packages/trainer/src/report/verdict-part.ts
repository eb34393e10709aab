/** The top of the report: what was trained, the verdict, and the most important numbers. */
import { basename } from 'node:path';
import { percent, times100 } from '../evaluation/numbers';
import { HEADLINES } from '../evaluation/verdict';
import type { Outcome } from '../evaluation/verdict';
import { commandLine } from './command-line';
import type { Html } from './html';
import { html } from './html';
import type { Run } from './run-files';

/** Name, preset and what was trained on. */
export function heading(run: Run): Html {
  const { config, results } = run;
  const count = results?.data.train;
  return html`<header>
    <h1>${title(run)}</h1>
    <p class="lead">
      ${config.model} fine-tuned with the preset <code>${config.preset}</code> on
      ${count !== undefined && html`${count.toLocaleString('en')} examples of `}<code>${config.data}</code>.
    </p>
    ${results && html`<p class="mono soft">${results.trainable}</p>`}
  </header>`;
}

export function title(run: Run): string {
  return `Fine-tuning report: ${basename(run.config.output_dir)}`;
}

const LOOKS: Record<Outcome, string> = {
  learned: 'good',
  unclear: 'open',
  'not learned': 'bad',
  'ignores the picture': 'bad',
  diverged: 'bad',
};

/** Did it learn, does it use the picture, what is weak, what to do next. */
export function verdictSection({ results }: Run): Html | undefined {
  const { verdict, next } = results ?? {};
  if (!verdict) return undefined;
  return html`<section id="verdict" class="verdict ${LOOKS[verdict.outcome]}">
    <h2 class="hidden">Verdict</h2>
    ${verdict.sentences.map(sentence)}
    ${
      next &&
      html`<p><b>Next</b> ${next.why}:</p>
        <pre><code>${commandLine(['npx', 'blip2', ...next.command])}</code></pre>`
    }
  </section>`;
}

/** "learned: 0 → 70", its first words in bold. */
export function sentence(text: string): Html {
  const [, label, rest] = /^([^:]+): (.*)$/s.exec(text) ?? [text, text, ''];
  return html`<p><b>${label.charAt(0).toUpperCase() + label.slice(1)}</b> ${rest}</p>`;
}

/** At most six numbers: the score that the verdict is about, the same under other conditions, a baseline, and the time. */
export function headline(run: Run): Html | undefined {
  const { results } = run;
  if (!results) return undefined;
  const cards = [...scoreCards(run), ...(results.verdict?.score ? [] : lossCards(run))];
  return html`<div class="cards">
    ${cards} ${card(duration(results.train_seconds), `training, ${results.steps} steps, ${results.backend}`)}
  </div>`;
}

function scoreCards({ results }: Run): Html[] {
  const { headline, score, others } = results?.verdict ?? {};
  if (!headline || !score || !others) return [];
  const { name, show } = HEADLINES[headline];
  const other = (value: number | undefined, label: string) =>
    value === undefined ? [] : [card(show(value), label)];
  const rows = results!.table?.rows ?? [];
  const guesses = rows.filter(
    ({ kind, name }) => kind === 'control' && !/^(blank|shuffled) images?$/.test(name),
  );
  const best = guesses.sort((a, b) => b.exact - a.exact)[0];
  return [
    card(
      show(score.mean),
      `${name} after training (95 % interval ${show(score.low)} to ${show(score.high)})`,
      'first',
    ),
    ...other(others.before, 'before training'),
    ...other(others.blank, 'with a blank image'),
    ...other(others.shuffled, 'with shuffled images'),
    ...(headline !== 'cider_d' && best ? [card(percent(best.exact), `best baseline: ${best.name}`)] : []),
  ];
}

/** What there is without a score. */
function lossCards({ metrics, results }: Run): Html[] {
  const losses = metrics.flatMap(({ loss }) => loss ?? []);
  const evaluated = metrics.findLast(({ eval_loss }) => eval_loss !== undefined)?.eval_loss;
  const cider = results?.figures?.captions?.cider_d;
  return [
    ...(losses.length > 0
      ? [
          card(
            losses.at(-1)!.toPrecision(3),
            `training loss at the end, ${losses[0].toPrecision(3)} at the beginning`,
          ),
        ]
      : []),
    ...(evaluated === undefined ? [] : [card(evaluated.toPrecision(3), 'validation loss')]),
    ...(cider === undefined ? [] : [card(times100(cider), 'CIDEr-D')]),
  ];
}

function card(value: string, label: string, kind = ''): Html {
  return html`<div class="card ${kind}"><b>${value}</b><span>${label}</span></div>`;
}

export function duration(seconds: number): string {
  if (seconds < 100) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 10) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
