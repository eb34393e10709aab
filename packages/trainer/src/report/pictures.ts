/** The held-out pictures with their texts, worst first. */
import { basename } from 'node:path';
import type { DecodeOptions } from '@blip2/data-captions';
import { thumbnail } from '@blip2/data-captions';
import type { Headline } from '../evaluation/evidence';
import { HEADLINES } from '../evaluation/verdict';
import type { Html } from './html';
import { html } from './html';
import type { Run, SampleRow } from './run-files';

/** The rows of one picture, such as its questions. */
export interface Shot {
  image: string;
  rows: SampleRow[];
  /** mean of the rows */
  score: number;
}

/** More pictures would make a page that browsers show slowly. */
const MOST_SHOWN = 1000;
/** Characters of all pictures in the page together. */
const MOST_EMBEDDED = 8 * 2 ** 20;
/** The sides of embedded pictures, in pixels, by how many there are. */
const SIDES = [
  { upTo: 100, side: 512 },
  { upTo: 400, side: 320 },
  { upTo: Infinity, side: 224 },
];

/** The pictures of a run in the order in which they are shown: the worst first. */
export function shotsOf({ samples, results }: Pick<Run, 'samples' | 'results'>): Shot[] {
  const headline = results?.verdict?.headline;
  const shots = new Map<string, SampleRow[]>();
  for (const row of samples) shots.set(row.image, [...(shots.get(row.image) ?? []), row]);
  const scoreOf = (row: SampleRow) => row.score ?? Number(isRight(row, headline));
  return [...shots]
    .map(([image, rows]) => ({
      image,
      rows,
      score: rows.reduce((sum, row) => sum + scoreOf(row), 0) / rows.length,
    }))
    .sort((a, b) => a.score - b.score);
}

/** data: addresses of the first pictures of a list, by name; none for files that are gone, or beyond the limit of the page. */
export async function embedded(
  images: readonly string[],
  decoding: DecodeOptions,
): Promise<Map<string, string>> {
  const shown = [...new Set(images)].slice(0, MOST_SHOWN);
  const { side } = SIDES.find(({ upTo }) => shown.length <= upTo)!;
  const found = new Map<string, string>();
  let left = MOST_EMBEDDED;
  for (const image of shown) {
    const uri = await thumbnail(image, side, decoding);
    if (uri === undefined) continue;
    if ((left -= uri.length) < 0) break;
    found.set(image, uri);
  }
  return found;
}

/** @param pictures data: addresses by name */
export function picturesSection(
  shots: readonly Shot[],
  pictures: ReadonlyMap<string, string>,
  headline: Headline | undefined,
): Html | undefined {
  if (shots.length === 0) return undefined;
  const shown = shots.slice(0, MOST_SHOWN);
  const rows = shots.flatMap((shot) => shot.rows);
  const wrong = rows.filter((row) => !isRight(row, headline)).length;
  return html`<section id="pictures">
    <h2>Pictures</h2>
    <p class="soft">
      ${counted(rows.length, 'text')} for ${counted(shots.length, 'held-out picture')}, ${wrong} of them
      ${headline === 'cider_d' ? 'not word for word a reference' : 'wrong'}; the worst come first.
      ${shown.length < shots.length && `The first ${shown.length.toLocaleString('en')} pictures are here, all are in samples.jsonl.`}
    </p>
    <p class="scripted filter">
      <label
        ><input type="checkbox" id="wrong-only" />
        ${headline === 'cider_d' ? 'without texts that are word for word a reference' : 'wrong only'}</label
      >
      <output for="wrong-only"></output>
    </p>
    <ul class="shots">
      ${shown.map((shot) => shotCard(shot, pictures.get(shot.image), headline))}
    </ul>
  </section>`;
}

const counted = (n: number, what: string) => `${n.toLocaleString('en')} ${what}${n === 1 ? '' : 's'}`;

function shotCard({ image, rows }: Shot, uri: string | undefined, headline: Headline | undefined): Html {
  return html`<li>
    ${picture(uri, rows[0].reference)} ${rows.map((row) => textRow(row, headline))}
    <p class="file"><bdi>${basename(image)}</bdi></p>
  </li>`;
}

const picture = (uri: string | undefined, text: string) =>
  uri ? html`<img src="${uri}" alt="${text}" />` : html`<div class="no-image">no picture</div>`;

/** The texts of the same few pictures before, during and after training. */
export function courseSection(
  course: Run['course'],
  pictures: ReadonlyMap<string, string>,
): Html | undefined {
  if (course.length === 0) return undefined;
  const rows = new Map<string, Run['course']>();
  for (const row of course) {
    const key = JSON.stringify([row.image, row.question]);
    rows.set(key, [...(rows.get(key) ?? []), row]);
  }
  return html`<section id="course">
    <h2>While it learned</h2>
    <p class="soft">What it wrote for the same pictures before, during and after training.</p>
    <ul class="shots">
      ${[...rows.values()].map((texts) => courseCard(texts, pictures.get(texts[0].image)))}
    </ul>
  </section>`;
}

function courseCard(texts: Run['course'], uri: string | undefined): Html {
  const { question, reference, image } = texts[0];
  return html`<li>
    ${picture(uri, reference)}
    <dl>
      ${question !== undefined && entry('question', question)} ${entry('reference', reference)}
      ${texts.map(({ step, text }) => entry(step === 0 ? 'before training' : `step ${step}`, text))}
    </dl>
    <p class="file"><bdi>${basename(image)}</bdi></p>
  </li>`;
}

function textRow(row: SampleRow, headline: Headline | undefined): Html {
  const { question, before, after } = row;
  const references = referencesOf(row);
  const right = isRight(row, headline);
  const score =
    headline === 'cider_d' && row.score !== undefined && `CIDEr-D ${HEADLINES.cider_d.show(row.score)}`;
  return html`<dl class="${right ? 'is-right' : 'is-wrong'}">
    ${question !== undefined && entry('question', question)}
    <div>
      <dt>after training</dt>
      <dd dir="auto" class="${right ? 'right' : 'wrong'}">
        <span class="hidden">${right ? 'right:' : 'wrong:'} </span
        >${marked(after, right ? undefined : references)}
      </dd>
      ${score && html`<dd class="soft">${score}</dd>`}
    </div>
    ${entry(references.length > 1 ? 'references' : 'reference', ...references)}
    ${before !== undefined && entry('before training', before)}
  </dl>`;
}

const entry = (name: string, ...texts: string[]) =>
  html`<div>
    <dt>${name}</dt>
    ${texts.map((text) => html`<dd dir="auto">${text || '(nothing)'}</dd>`)}
  </div>`;

/** The text, with a line under words that are in no reference. */
function marked(text: string, references: string[] | undefined): Html | string {
  if (!text) return '(nothing)';
  if (!references) return text;
  const known = new Set(references.flatMap((reference) => reference.toLowerCase().split(/[\s.,;:!?"]+/)));
  return html`${text
    .split(/(\s+)/)
    .map((word) =>
      known.has(word.toLowerCase().replace(/[.,;:!?"]+$/, '')) || /^\s*$/.test(word)
        ? word
        : html`<u>${word}</u>`,
    )}`;
}

const referencesOf = ({ references, reference }: SampleRow) => references ?? [reference];

/** At least half of the answer's score; of captions, also of the nearest ones of a retrieval, word for word one of the references. */
export function isRight(row: SampleRow, headline: Headline | undefined): boolean {
  if (row.score !== undefined && headline !== undefined && headline !== 'cider_d' && headline !== 'recall')
    return row.score >= 0.5;
  return referencesOf(row).some((reference) => row.after.trim() === reference.trim());
}
