/** Reads runs, compares them, and makes the page of the comparison. */
import { existsSync } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { writeFileAtomic } from '@blip2/weights/node';
import { HEADLINES } from '../evaluation/verdict';
import type { Chart, Series } from './chart';
import { chart } from './chart';
import type { ComparedRun, Comparison } from './compare';
import { compareRuns, isBeyondNoise, points } from './compare';
import { pointsOf } from './curves';
import type { Html } from './html';
import { html } from './html';
import { GENERATOR, renderPage } from './page';
import type { Run } from './run-files';
import { readRun } from './run-files';
import { textTable } from './table';
import { duration, sentence } from './verdict-part';

/** Reads run folders and compares them. @throws Error for a folder that is no run */
export async function compare(dirs: readonly string[]): Promise<{ runs: Run[]; comparison: Comparison }> {
  const runs = await Promise.all(dirs.map(readRun));
  const bytes = await Promise.all(dirs.map(resultBytes));
  return { runs, comparison: compareRuns(runs, bytes) };
}

async function resultBytes(dir: string): Promise<number | undefined> {
  const folder = ['adapter', 'model'].map((name) => join(dir, name)).find((path) => existsSync(path));
  if (!folder) return undefined;
  const sizes = (await readdir(folder)).map(async (name) => (await stat(join(folder, name))).size);
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}

/** Writes the page. @throws Error if `file` exists and is not a page of this program */
export async function writeComparison(
  file: string,
  runs: readonly Run[],
  comparison: Comparison,
): Promise<void> {
  if (existsSync(file) && !(await isOurs(file)))
    throw new Error(
      `${file}: expected a new file or a page of blip2, found another file; choose another name`,
    );
  await writeFileAtomic(file, await comparisonHtml(runs, comparison));
}

async function isOurs(file: string): Promise<boolean> {
  const handle = await open(file);
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(GENERATOR.length), 0, GENERATOR.length);
    return buffer.toString('utf8', 0, bytesRead) === GENERATOR;
  } finally {
    await handle.close();
  }
}

/** The runs as a table: the first row holds the names of the columns. What is the same in all runs is not in it. */
export function comparisonTable({ runs, best }: Comparison): string[][] {
  const score = (run: ComparedRun, value: number | undefined) =>
    run.headline && value !== undefined ? HEADLINES[run.headline].show(value) : '–';
  const columns: [string, (run: ComparedRun) => string][] = [
    ['preset', ({ preset }) => preset],
    ['data', ({ data }) => basename(data)],
    ['examples', ({ train }) => train?.toLocaleString('en') ?? '–'],
    ['steps', ({ steps }) => steps.toLocaleString('en')],
    [
      'score',
      (run) => (run.headline ? `${HEADLINES[run.headline].name} ${score(run, run.score?.mean)}` : '–'),
    ],
    [
      '95 % interval',
      (run) => (run.score ? `${score(run, run.score.low)} to ${score(run, run.score.high)}` : '–'),
    ],
    ['to the best', (run) => toTheBest(run, best)],
    ['before training', (run) => score(run, run.others.before)],
    ['blank image', (run) => score(run, run.others.blank)],
    ['shuffled images', (run) => score(run, run.others.shuffled)],
    ['training loss', ({ loss }) => loss.training?.toPrecision(3) ?? '–'],
    ['validation loss', ({ loss }) => loss.validation?.toPrecision(3) ?? '–'],
    ['time', ({ seconds }) => (seconds === undefined ? '–' : duration(seconds))],
    ['size', ({ bytes }) => (bytes === undefined ? '–' : `${(bytes / 1e6).toFixed(1)} MB`)],
  ];
  const always = ['score', 'to the best'];
  const kept = columns.filter(([name, of]) => always.includes(name) || new Set(runs.map(of)).size > 1);
  return [
    ['run', ...kept.map(([name]) => name)],
    ...runs.map((run) => [run.name, ...kept.map(([, of]) => of(run))]),
  ];
}

function toTheBest({ name, apart, behind, headline }: ComparedRun, best: string | undefined): string {
  if (name === best) return 'best';
  if (apart || !behind || !headline) return 'not compared';
  return `−${points(headline, behind.mean)}${isBeyondNoise(behind) ? '' : ', within noise'}`;
}

/** The page of a comparison. */
export function comparisonHtml(runs: readonly Run[], comparison: Comparison): Promise<string> {
  const { settings, sentences, best } = comparison;
  const title = `Comparison of ${runs.length} runs`;
  const names = comparison.runs.map(({ name }) => name);
  return renderPage({
    title,
    top: html`<header><h1>${title}</h1></header>
      <section class="verdict ${best === undefined ? 'open' : 'good'}">
        <h2 class="hidden">Result</h2>
        ${sentences.map(sentence)}
      </section>`,
    sections: [
      [
        'runs',
        'Runs',
        html`<section id="runs">
          <h2>Runs</h2>
          <p class="soft">Columns in which all runs are the same are left out.</p>
          ${textTable(comparisonTable(comparison), (name) => (name === best ? 'model' : ''))}
        </section>`,
      ],
      ['settings', 'Settings', settingsSection(settings, names)],
      ['curves', 'Curves', curvesSection(runs, names)],
    ],
  });
}

function settingsSection(settings: Comparison['settings'], names: string[]): Html {
  return html`<section id="settings">
    <h2>What differs in the settings</h2>
    ${
      settings.length > 0
        ? textTable([['setting', ...names], ...settings.map(({ name, values }) => [name, ...values])])
        : html`<p>Nothing.</p>`
    }
  </section>`;
}

/** The same curve of every run in one chart, each run in its colour. */
function curvesSection(runs: readonly Run[], names: string[]): Html | undefined {
  const of = (look: Series['look'], field: string, factor = 1): Series[] =>
    runs.map(({ metrics }, i) => ({
      name: names[i],
      look,
      colour: i,
      points: pointsOf(metrics, field, factor),
    }));
  const share = { digits: 1, suffix: ' %' };
  const charts: Chart[] = [
    { title: 'Training loss', series: of('line', 'loss'), log: true, wide: true },
    { title: 'Validation loss', series: of('marks', 'eval_loss'), log: true },
    { title: 'CIDEr-D', series: of('marks', 'eval_cider_d', 100), digits: 1 },
    { title: 'Accuracy', series: of('marks', 'eval_accuracy', 100), ...share },
    { title: 'Exact match', series: of('marks', 'eval_exact', 100), ...share },
    { title: 'Learning rate', series: of('line', 'learning_rate') },
  ];
  const drawn = charts.map(chart).filter((one) => one !== undefined);
  if (drawn.length === 0) return undefined;
  return html`<section id="curves">
    <h2>Curves</h2>
    <div class="charts">${drawn}</div>
  </section>`;
}
