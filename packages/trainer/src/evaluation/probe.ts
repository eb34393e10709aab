/** The pixel controls: the caption of the nearest training image, and a linear classifier on raw pixels. */
import type { Matrix } from './ridge';
import { ridgePredict, timesTransposed } from './ridge';
import type { Parts, Score } from './score';
import { partNames, partsReader, scoreParts } from './score';

export interface Labelled {
  /** one row of pixel features per image */
  pixels: Matrix;
  /** the references of each; training learns the first */
  references: string[][];
}

/** Strengths tried, as shares of the kernel's mean diagonal. Below the first one float32 is no longer exact enough. */
const STRENGTHS = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1];
/** Used if there is no validation split to choose on. */
const UNTUNED = 1e-2;

export interface Probe extends Score {
  strength: number;
  tuned: boolean;
}

/** For each row of `queries`, the row of `among` at the smallest Euclidean distance; the first one of equals. */
export async function nearestRows(queries: Matrix, among: Matrix): Promise<number[]> {
  const dot = await timesTransposed(queries, among);
  const norms = rowNorms(among);
  return Array.from({ length: queries.rows }, (_, i) => {
    let best = 0;
    let least = Infinity;
    for (let j = 0; j < among.rows; j++) {
      const distance = norms[j] - 2 * dot.data[i * among.rows + j];
      if (distance < least) [best, least] = [j, distance];
    }
    return best;
  });
}

/**
 * Ridge from standardised pixels to the parts of the caption, one classifier per part, all of one strength,
 * which is the best on validation (exact, then mean of parts, then the stronger one).
 */
export async function linearProbe(
  train: Labelled,
  validation: Labelled | undefined,
  test: Labelled,
  partsPattern: string,
): Promise<Probe> {
  const usable = readable(train, partsPattern);
  const standardise = standardiser(usable.pixels);
  const features = standardise(usable.pixels);
  const kernel = await timesTransposed(features, features);
  const targets = oneHot(usable.parts, partNames(partsPattern));
  const against = async ({ pixels, references }: Labelled): Promise<Problem> => {
    const queries = await timesTransposed(standardise(pixels), features);
    return { kernel, targets, queries, references, partsPattern };
  };
  const strength = validation ? await tune(await against(validation)) : UNTUNED;
  const score = await solve(await against(test), strength);
  if (!score)
    throw new Error('linear probe: the pixel kernel is not positive definite; are all images equal?');
  return { ...score, strength, tuned: !!validation };
}

interface Problem {
  kernel: Matrix;
  targets: OneHot;
  /** kernel between the examples to be scored and the training ones */
  queries: Matrix;
  references: string[][];
  partsPattern: string;
}

async function tune(problem: Problem): Promise<number> {
  let best = { strength: UNTUNED, merit: -Infinity };
  for (const strength of STRENGTHS) {
    const score = await solve(problem, strength);
    if (!score) continue;
    const shares = Object.values(score.parts);
    const merit = score.exact + 1e-6 * (shares.reduce((sum, share) => sum + share, 0) / shares.length);
    if (merit >= best.merit) best = { strength, merit };
  }
  return best.strength;
}

async function solve(problem: Problem, strength: number): Promise<Score | undefined> {
  const { kernel, queries, targets, references, partsPattern } = problem;
  const scores = await ridgePredict(kernel, queries, targets.matrix, strength);
  return scores && scoreProbe(targets.decode(scores), references, partsPattern);
}

/** A caption is exact if all parts are those of one reference, because the parts determine it. */
function scoreProbe(predicted: Parts[], references: string[][], pattern: string): Score {
  const read = partsReader(pattern);
  const names = partNames(pattern);
  const equals = (i: number) => (text: string) => {
    const want = read(text);
    return want !== undefined && names.every((name) => want[name] === predicted[i][name]);
  };
  return {
    exact: references.filter((texts, i) => texts.some(equals(i))).length / references.length,
    parts: scoreParts(predicted, references, pattern),
    parsed: 1,
    n: references.length,
  };
}

interface OneHot {
  /** centred one-hot rows, the parts side by side */
  matrix: Matrix;
  decode: (scores: Matrix) => Parts[];
}

function oneHot(rows: Parts[], names: string[]): OneHot {
  const values = names.map((name) => [...new Set(rows.map((row) => row[name]))]);
  const starts = values.map((_, i) => values.slice(0, i).reduce((sum, list) => sum + list.length, 0));
  const cols = values.reduce((sum, list) => sum + list.length, 0);
  const data = new Float32Array(rows.length * cols);
  rows.forEach((row, i) =>
    names.forEach((name, part) => (data[i * cols + starts[part] + values[part].indexOf(row[name])] = 1)),
  );
  const mean = columnMeans({ data, rows: rows.length, cols });
  for (let i = 0; i < data.length; i++) data[i] -= mean[i % cols];

  const decode = (scores: Matrix) =>
    Array.from({ length: scores.rows }, (_, i) => {
      const value = (part: number) => {
        const at = i * cols + starts[part];
        const ranked = values[part].map((_, v) => scores.data[at + v] + mean[starts[part] + v]);
        return values[part][ranked.indexOf(Math.max(...ranked))];
      };
      return Object.fromEntries(names.map((name, part) => [name, value(part)]));
    });
  return { matrix: { data, rows: rows.length, cols }, decode };
}

/** The rows whose caption the pattern reads, with their parts. */
function readable({ pixels, references }: Labelled, pattern: string): { pixels: Matrix; parts: Parts[] } {
  const captions = references.map(([first]) => first);
  const read = captions.map(partsReader(pattern));
  const kept = read.flatMap((parts, i) => (parts ? [i] : []));
  if (kept.length === 0)
    throw new Error(
      `parts_pattern: no training caption matches ${pattern}; the first one is ${JSON.stringify(captions[0])}`,
    );
  const { cols } = pixels;
  const data = new Float32Array(kept.length * cols);
  kept.forEach((from, to) => data.set(pixels.data.subarray(from * cols, (from + 1) * cols), to * cols));
  return { pixels: { data, rows: kept.length, cols }, parts: kept.map((i) => read[i]!) };
}

/** Maps to mean 0 and variance 1 / (number of features) on the training rows, so that the kernel's mean diagonal is 1. */
function standardiser(train: Matrix): (pixels: Matrix) => Matrix {
  const { rows, cols } = train;
  const mean = columnMeans(train);
  const square = new Float64Array(cols);
  for (let i = 0; i < train.data.length; i++) square[i % cols] += (train.data[i] - mean[i % cols]) ** 2;
  const alive = square.filter((sum) => sum > 1e-9 * rows).length || 1;
  const scale = square.map((sum) => (sum > 1e-9 * rows ? 1 / Math.sqrt((sum / rows) * alive) : 0));
  return (pixels) => ({ ...pixels, data: pixels.data.map((x, i) => (x - mean[i % cols]) * scale[i % cols]) });
}

function columnMeans({ data, rows, cols }: Matrix): Float64Array {
  const mean = new Float64Array(cols);
  for (let i = 0; i < data.length; i++) mean[i % cols] += data[i] / rows;
  return mean;
}

function rowNorms({ data, rows, cols }: Matrix): Float64Array {
  const norms = new Float64Array(rows);
  for (let i = 0; i < data.length; i++) norms[Math.floor(i / cols)] += data[i] ** 2;
  return norms;
}
