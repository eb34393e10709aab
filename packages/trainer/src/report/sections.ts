/** The sections of the report, top to bottom. Empty sections are left out. */
import { basename } from 'node:path';
import { questionPrompt } from '@blip2/data-captions';
import type { Figures } from '../evaluation/figures';
import { figureTables } from '../evaluation/figures';
import type { ResultRow, ResultsTable } from '../evaluation/results';
import { formatShare, margin, sizeOf } from '../evaluation/results';
import type { Verdict } from '../evaluation/verdict';
import { HEADLINES } from '../evaluation/verdict';
import { commandLine } from './command-line';
import type { Series } from './chart';
import { chart } from './chart';
import type { Html } from './html';
import { html } from './html';
import type { Run, SampleRow } from './run-files';

/** Name, preset and what was trained on. */
export function heading(run: Run): Html {
  const { config, results } = run;
  const count = results?.data.train;
  return html`<header>
    <h1>${title(run)}</h1>
    <p class="lead">
      ${config.model} fine-tuned with the <code>${config.preset}</code> preset on
      ${count !== undefined && html`${count.toLocaleString('en')} examples of `}<code>${config.data}</code>.
    </p>
    ${results && html`<p class="mono soft">${results.trainable}</p>`}
  </header>`;
}

export function title(run: Run): string {
  return `Fine-tuning report: ${basename(run.config.output_dir)}`;
}

/** Did it learn, does it use the picture, what is weak, what to do next. */
export function verdictSection({ results }: Run): Html | undefined {
  const { verdict, next } = results ?? {};
  if (!verdict) return undefined;
  const [first, ...rest] = verdict.sentences;
  return html`<section class="verdict ${verdict.outcome === 'learned' ? 'good' : 'open'}">
    <p><b>${first}</b></p>
    ${rest.map((sentence) => html`<p>${sentence}</p>`)}
    ${next && html`<p>Next: ${next.why}: <code>${commandLine(['npx', 'blip2', ...next.command])}</code></p>`}
  </section>`;
}

/** The most important numbers. */
export function headline({ results, metrics }: Run): Html {
  const rows = results?.table?.rows ?? [];
  const model = rows.find(({ kind }) => kind === 'model');
  const base = rows.find(({ kind }) => kind === 'base');
  const rival = rows.filter(({ kind }) => kind === 'control').sort((a, b) => b.exact - a.exact)[0];
  const evaluated = metrics.filter(({ eval_loss }) => eval_loss !== undefined).pop();
  const n = results?.table?.n ?? 0;
  const exact = (results?.verdict?.headline ?? 'exact') === 'exact';
  const interval =
    model && `±${(100 * margin(model.exact, n)).toFixed(1)}, ${n.toLocaleString('en')} examples`;
  return html`<div class="cards">
    ${exact ? '' : verdictCards(results!.verdict!)}
    ${exact && model && card(percent(model.exact), `exact match after training (${interval})`)}
    ${exact && base && card(percent(base.exact), 'before training')}
    ${exact && rival && card(percent(rival.exact), `best control: ${rival.name}`)}
    ${exact && scoreCard(results?.figures)}
    ${evaluated && card(evaluated.eval_loss!.toFixed(3), 'validation loss')}
    ${
      results && card(duration(results.train_seconds), `training, ${results.steps} steps, ${results.backend}`)
    }
  </div>`;
}

/** The score that the verdict is about, and the other conditions. */
function verdictCards({ headline, score, others }: Verdict): Html[] {
  if (!headline || !score) return [];
  const { name, show } = HEADLINES[headline];
  const other = (value: number | undefined, label: string) =>
    value === undefined ? [] : [card(show(value), label)];
  return [
    card(
      show(score.mean),
      `${name} after training (95 % interval ${show(score.low)} to ${show(score.high)})`,
    ),
    ...other(others.before, 'before training'),
    ...other(others.blank, 'with a blank image'),
    ...other(others.shuffled, 'with shuffled images'),
  ];
}

/** The metric that papers report for the task. */
function scoreCard(figures: Figures | undefined): Html | undefined {
  const { captions, vqa, question_only } = figures ?? {};
  if (captions) return card((100 * captions.cider_d).toFixed(1), 'CIDEr-D');
  if (vqa?.rule !== 'official') return undefined; // the other rule is nearly the exact match of the first card
  const blank = question_only?.vqa && ` (${percent(question_only.vqa.accuracy)} from the question alone)`;
  return card(percent(vqa.accuracy), `VQA accuracy${blank ?? ''}`);
}

function card(value: string, label: string): Html {
  return html`<div class="card"><b>${value}</b><span>${label}</span></div>`;
}

export function resultsSection({ results }: Run): Html | undefined {
  const table = results?.table;
  if (!table) return undefined;
  const head = ['texts from', 'exact', ...table.parts];
  return html`<section>
    <h2>Results${table.split && html` on the ${table.split} examples`}</h2>
    <p class="soft">
      Shares of ${sizeOf(table)}; exact means the whole text of one reference. A control above the model, or a
      blank or shuffled image close to it, means that the score does not come from looking at the picture.
    </p>
    <div class="wide">
      <table>
        <thead>
          <tr>
            ${head.map((name) => html`<th scope="col">${name}</th>`)}
            <th scope="col" class="note">note</th>
          </tr>
        </thead>
        <tbody>
          ${table.rows.map((row) => resultLine(row, table))}
        </tbody>
      </table>
    </div>
    ${results.figures && figuresPart(results.figures)}
  </section>`;
}

/** Caption metrics or VQA accuracy, and measures of degeneration. */
function figuresPart(figures: Figures): Html {
  const { scores, signs } = figureTables(figures);
  const about = figures.vqa
    ? 'Per cent of the questions of each type. A white picture shows what the question alone gives away.'
    : 'Times 100, as papers print them. METEOR is the NLTK variant with exact and stem matches, not METEOR 1.5; CIDEr ' +
      'depends on the data set and cannot be compared with another one.';
  return html`<h3>${figures.vqa ? 'Answers by type of question' : 'Caption metrics'}</h3>
    <p class="soft">${about}</p>
    <div class="wide">${plainTable(scores)}</div>
    <h3>Does it look at the picture?</h3>
    <p class="soft">
      Per cent. A model that repeats itself or says the same of many pictures, more than the references do, or
      says the same of another picture, does not look.
    </p>
    <div class="wide">${plainTable(signs)}</div>`;
}

function plainTable([head, ...lines]: string[][]): Html {
  return html`<table>
    <thead>
      <tr>
        ${head.map((name) => html`<th scope="col">${name}</th>`)}
      </tr>
    </thead>
    <tbody>
      ${lines.map(
        ([name, ...cells]) =>
          html`<tr>
            <th scope="row">${name}</th>
            ${cells.map((cell) => html`<td>${cell}</td>`)}
          </tr>`,
      )}
    </tbody>
  </table>`;
}

function resultLine(row: ResultRow, table: ResultsTable): Html {
  return html`<tr class="${row.kind}">
    <th scope="row">${row.name}</th>
    <td class="bar" style="--share: ${(100 * row.exact).toFixed(1)}%">${formatShare(row.exact)}</td>
    ${table.parts.map((part) => html`<td>${formatShare(row.parts[part])}</td>`)}
    <td class="note">${row.note ?? ''}</td>
  </tr>`;
}

export function curvesSection({ metrics, config }: Run): Html | undefined {
  const points = (name: string) =>
    metrics.flatMap((row) =>
      typeof row[name] === 'number' ? [{ x: row.step, y: row[name] as number }] : [],
    );
  const loss: Series[] = [
    { name: 'training', look: 'line', points: points('loss') },
    { name: 'validation', look: 'marks', points: points('eval_loss') },
  ];
  const ofTexts = (title: string, name: string, format: (y: number) => string) =>
    chart(title, 'step', [{ name: 'validation', look: 'marks', points: points(name) }], format);
  const share = (y: number) => `${Number((100 * y).toFixed(1))} %`;
  const { metric_for_best_model: best } = config;
  const chosen = !['eval_loss', 'eval_exact', 'eval_accuracy', 'eval_cider_d'].includes(best);
  const charts = [
    chart('Loss per token', 'step', loss, (y) => String(Number(y.toFixed(3)))),
    ofTexts('Exact match', 'eval_exact', share),
    ofTexts('VQA accuracy', 'eval_accuracy', share),
    ofTexts('CIDEr-D × 100', 'eval_cider_d', (y) => String(Number((100 * y).toFixed(1)))),
    chosen
      ? ofTexts(`${best}, which chooses the weights`, best, (y) => String(Number(y.toPrecision(3))))
      : undefined,
    chart('Learning rate', 'step', [{ name: 'rate', look: 'line', points: points('learning_rate') }], (y) =>
      y === 0 ? '0' : y.toExponential(1),
    ),
  ].filter((one) => one !== undefined);
  if (charts.length === 0) return undefined;
  return html`<section>
    <h2>Curves</h2>
    <div class="charts">${charts}</div>
  </section>`;
}

/** @param pictures data: addresses, by row */
export function samplesSection(samples: SampleRow[], pictures: (string | undefined)[]): Html | undefined {
  if (samples.length === 0) return undefined;
  return html`<section>
    <h2>Samples</h2>
    <ul class="samples">
      ${samples.map((sample, i) => sampleCard(sample, pictures[i]))}
    </ul>
  </section>`;
}

function sampleCard(sample: SampleRow, picture: string | undefined): Html {
  const references = sample.references ?? [sample.reference];
  return html`<li>
    ${
      picture
        ? html`<img src="${picture}" alt="${sample.reference}" />`
        : html`<div class="no-image">no picture</div>`
    }
    <dl>
      ${
        sample.question &&
        html`<dt>question</dt>
          <dd>${sample.question}</dd>`
      }
      <dt>${references.length > 1 ? 'references' : 'reference'}</dt>
      ${references.map((text) => html`<dd>${text}</dd>`)}
      ${sample.before !== undefined && said('before', sample.before, references)}
      ${said('after', sample.after, references)}
    </dl>
  </li>`;
}

function said(when: string, text: string, references: string[]): Html {
  const right = references.some((reference) => text.trim() === reference.trim());
  return html`<dt>${when}</dt>
    <dd class="${right ? 'right' : 'wrong'}">
      <span class="hidden">${right ? 'right:' : 'wrong:'} </span>${text || '(nothing)'}
    </dd>`;
}

/**
 * How to use the result in Python and with this command, with the prompt that it was trained with.
 * @param hasExtra the adapter has trained tensors that PEFT does not load (extra_trainables.safetensors)
 */
export function usageSection({ config }: Run, made: 'adapter' | 'model', hasExtra: boolean): Html {
  const path = `${config.output_dir}/${made}`;
  const { task, prompt } = config;
  const text = task === 'vqa' ? questionPrompt(QUESTION, prompt) : prompt;
  const load = made === 'adapter' ? peftSnippet(config.model, path, hasExtra) : transformersSnippet(path);
  const python = `${load}\n${generateSnippet(text)}`;
  const here = [
    task === 'vqa'
      ? `npx blip2 answer picture.png --question ${JSON.stringify(QUESTION)}`
      : 'npx blip2 caption picture.png',
    made === 'adapter' ? `--model ${config.model} --adapter ${path}` : `--model ${path}`,
    ...(prompt === undefined ? [] : [`--prompt ${JSON.stringify(prompt)}`]),
  ].join(' ');
  return html`<section>
    <h2>Use it</h2>
    <p>On the command line:</p>
    <pre><code>${here}</code></pre>
    <p>In Python, with transformers${made === 'adapter' && ' and PEFT'}:</p>
    <pre><code>${python}</code></pre>
  </section>`;
}

const QUESTION = 'what is this?';

function generateSnippet(text: string | undefined): string {
  const prompt = text === undefined ? '' : `text=${JSON.stringify(text)}, `;
  return `inputs = processor(images=Image.open("picture.png").convert("RGB"), ${prompt}return_tensors="pt")
print(processor.decode(model.generate(**inputs, max_new_tokens=30)[0], skip_special_tokens=True))`;
}

function peftSnippet(model: string, path: string, hasExtra: boolean): string {
  const extra = JSON.stringify(`${path}/extra_trainables.safetensors`);
  const load = hasExtra
    ? `from safetensors.torch import load_file
base.load_state_dict(load_file(${extra}), strict=False)  # PEFT does not know this file
`
    : '';
  return `from peft import PeftModel
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor

processor = Blip2Processor.from_pretrained(${JSON.stringify(model)})
base = Blip2ForConditionalGeneration.from_pretrained(${JSON.stringify(model)})
${load}model = PeftModel.from_pretrained(base, ${JSON.stringify(path)}).eval()`;
}

function transformersSnippet(path: string): string {
  return `from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor

processor = Blip2Processor.from_pretrained(${JSON.stringify(path)})
model = Blip2ForConditionalGeneration.from_pretrained(${JSON.stringify(path)}).eval()`;
}

/** Everything that is needed to repeat the run. */
export function detailsSection({ configText, environment }: Run): Html {
  const facts = Object.entries(environment).map(
    ([name, value]) =>
      html`<dt>${name}</dt>
        <dd>${typeof value === 'object' ? JSON.stringify(value) : String(value)}</dd>`,
  );
  return html`<section>
    <h2>Repeat it</h2>
    <p>Save these settings as <code>config.yaml</code> and run <code>npx blip2 fit config.yaml</code>.</p>
    <details>
      <summary>Settings</summary>
      <pre><code>${configText}</code></pre>
    </details>
    ${
      facts.length > 0 &&
      html`<details>
        <summary>Environment</summary>
        <dl class="facts">${facts}</dl>
      </details>`
    }
  </section>`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

export function duration(seconds: number): string {
  if (seconds < 100) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 10) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
