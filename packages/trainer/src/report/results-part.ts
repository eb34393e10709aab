/** The tables of the report, and what was confused with what. */
import type { Figures } from '../evaluation/figures';
import { figureTables } from '../evaluation/figures';
import { percent } from '../evaluation/numbers';
import type { ResultsTable } from '../evaluation/results';
import { EXACT, sizeOf } from '../evaluation/results';
import type { Verdict } from '../evaluation/verdict';
import type { Html } from './html';
import { html } from './html';
import type { Run } from './run-files';
import { table, textTable } from './table';

export function resultsSection({ results }: Run): Html | undefined {
  const { table: found, figures, verdict } = results ?? {};
  if (!found) return undefined;
  // whole captions that are word for word the same mean little where captions are free
  const exact = verdict?.headline !== 'cider_d';
  return html`<section id="results">
    <h2>Results${found.split && html` on the ${found.split} split`}</h2>
    <p class="soft">${sizeOf(found)}, none of them in the training data.</p>
    ${figures?.vqa && scoresPart(figures, verdict)} ${exact && exactPart(found)}
    ${figures?.captions && scoresPart(figures, verdict)} ${figures && repetitionPart(figures)}
  </section>`;
}

function exactPart({ parts, rows, score }: ResultsTable): Html {
  const withNotes = rows.some(({ note }) => note !== undefined);
  const lines = rows.map(({ name, kind, exact, parts: of, note }) => ({
    name,
    kind,
    cells: [bar(exact), ...parts.map((part) => percent(of[part])), ...(withNotes ? [note ?? ''] : [])],
  }));
  const about =
    score === undefined
      ? `The share of texts that are word for word one of their references${parts.length > 0 ? ', and of each part of them' : ''}.`
      : 'How often a text of the picture is among the 1, 5 and 10 nearest texts, and the picture of a text among the nearest pictures; ' +
        'recall at 1 is the mean of both ways.';
  return html`<h3>${score === undefined ? 'Word for word' : 'Recall'}</h3>
    <p class="soft">
      ${about} If the model is not better than a baseline, or about as good with a blank image or shuffled
      images, then its score does not come from looking at the picture.
    </p>
    ${table(['texts from', score ?? EXACT, ...parts, ...(withNotes ? ['note'] : [])], lines)}`;
}

const bar = (share: number) =>
  html`<span class="bar" style="--share: ${(100 * share).toFixed(1)}%">${percent(share)}</span>`;

/** Caption metrics or VQA accuracy under each condition. */
function scoresPart(figures: Figures, verdict: Verdict | undefined): Html {
  const { scores } = figureTables(figures);
  const weak = new Set(verdict?.weak.map(({ name }) => name));
  const about = figures.vqa
    ? 'The share of right answers. A blank image shows what the question alone gives away.'
    : 'Times 100, as papers print them. METEOR is the NLTK variant with exact and stem matches, not METEOR 1.5. CIDEr ' +
      'depends on the data set and cannot be compared with that of other data.';
  return html`<h3>${figures.vqa ? 'Answers by type of question' : 'Caption metrics'}</h3>
    <p class="soft">${about}${weak.size > 0 && figures.vqa && ' Weak types are marked.'}</p>
    ${textTable(scores, (name) => (weak.has(name) ? 'weak' : ''))}`;
}

function repetitionPart(figures: Figures): Html {
  const { signs } = figureTables(figures);
  return html`<h3>Does it repeat itself?</h3>
    <p class="soft">
      References repeat too, short ones most. A model that repeats itself more than they do, or whose texts do
      not change with shuffled images, does not look at the picture.
    </p>
    ${textTable(signs)}`;
}

/** What the model writes instead of what it should, the commonest first. */
export function confusionsSection({ results }: Run): Html | undefined {
  const confusions = results?.verdict?.confusions ?? [];
  if (confusions.length === 0) return undefined;
  const most = confusions[0].times;
  return html`<section id="confusions">
    <h2>Confusions</h2>
    <p class="soft">What it wrote in place of what was expected, the commonest first.</p>
    <ol class="confusions">
      ${confusions.map(
        ({ expected, found, times }) =>
          html`<li style="--share: ${((100 * times) / most).toFixed(1)}%">
            <span class="times">${times} ×</span>
            <bdi class="wrong">${found || '(nothing)'}</bdi> <span class="soft">instead of</span>
            <bdi>${expected}</bdi>
          </li>`,
      )}
    </ol>
  </section>`;
}
