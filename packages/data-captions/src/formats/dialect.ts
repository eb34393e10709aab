/** The separator and header of CSV files, told from their first lines. */
import type { Layout } from '../layout';
import { isKnown, ROLES } from '../columns';
import { openSync, readSync, closeSync } from 'node:fs';
import { isBase64 } from './base64';
import { utf16 } from './encoding';
import { PICTURE_NAME } from './folder';

export interface Dialect {
  delimiter: string;
  /** Names for a file without a header line. */
  columns?: string[];
  /** Lines end in CR and LF. */
  crlf: boolean;
  /** Number of known names in the header line. */
  known: number;
  /** Excel's `sep=;` line comes first. */
  separatorLine: boolean;
  /** Removes what a form adds to its cells. */
  clean?: (name: string, cell: string) => unknown;
}

const DELIMITERS = [',', ';', '\t', '|'];

/** @param head the decoded beginning of the file */
export function dialectOf(head: string, file: string, layout: Layout = {}): Dialect {
  const lines = head.split(/\r\n|\n|\r/).filter((line) => line.trim() !== '');
  const named = /^"?sep=(.)"?\s*$/.exec(lines[0] ?? '')?.[1];
  const first = lines[named ? 1 : 0] ?? '';
  const own = new Set(ROLES.map((role) => layout[`${role}_column`]));
  const known = (cells: string[]) => cells.filter((cell) => isKnown(cell) || own.has(cell)).length;
  const candidates = (named ? [named] : DELIMITERS).map((delimiter) => {
    const cells = cellsOf(first, delimiter);
    return {
      delimiter,
      cells,
      rank: [known(cells), Number(delimiter === '\t' && /\.tsv$/i.test(file)), cells.length],
    };
  });
  const better = (a: number[], b: number[]) => a.map((x, i) => x - b[i]).find((x) => x !== 0) ?? 0;
  const best = candidates.reduce((a, b) => (b.cells.length > 1 && better(b.rank, a.rank) > 0 ? b : a));
  const dialect = {
    delimiter: best.delimiter,
    separatorLine: named !== undefined,
    known: best.rank[0],
    crlf: /^[^\r\n]*\r\n/.test(head),
  };
  return best.rank[0] > 0 ? dialect : { ...dialect, ...withoutHeader(best.cells) };
}

/** Whether a text file begins as a table of pictures and texts. */
export function hasTable(file: string): boolean {
  const head = Buffer.alloc(4096);
  const handle = openSync(file, 'r');
  try {
    const bytes = head.subarray(0, readSync(handle, head, 0, head.length, 0));
    const text = new TextDecoder(utf16(bytes) ?? 'utf-8').decode(bytes);
    const { columns, known } = dialectOf(text, file);
    return columns !== undefined || known > 1;
  } finally {
    closeSync(handle);
  }
}

/** The cells of a line; a separator inside quotes does not count. */
function cellsOf(line: string, delimiter: string): string[] {
  const cells = [''];
  let quoted = false;
  for (const part of line.split(delimiter)) {
    if (quoted) cells[cells.length - 1] += delimiter + part;
    else cells.push(part);
    if ((part.split('"').length - 1) % 2 === 1) quoted = !quoted;
  }
  return cells.slice(1).map((cell) => cell.trim().replace(/^"(.*)"$/s, '$1'));
}

const isUrl = (cell: string) => /^https?:\/\//i.test(cell);
const isSentence = (cell: string) => /\S\s+\S/.test(cell);

/**
 * Forms without a header line: OFA (…, caption or question and answers, …, base64), Flickr8k's and Flickr30k's tokens
 * (`name.jpg#0`, caption), Conceptual Captions (caption, address), VQA-Med (`id|question|answer`), and plain `name.jpg,caption`.
 */
function withoutHeader(cells: string[]): Partial<Dialect> {
  const [first, second = '', third] = cells;
  const base64 = cells.findIndex(isBase64);
  if (base64 === 4) return { columns: ['uniq_id', 'image_id', 'caption', 'labels', 'image'], clean: ofa };
  if (base64 === 5)
    return { columns: ['question_id', 'image_id', 'question', 'answer', 'labels', 'image'], clean: ofa };
  if (cells.length === 2) {
    if (/#\d+$/.test(first) && PICTURE_NAME.test(first.replace(/#\d+$/, '')))
      return {
        columns: ['image', 'caption'],
        clean: (name, cell) => (name === 'image' ? cell.replace(/#\d+$/, '') : cell),
      };
    if (PICTURE_NAME.test(first) || base64 === 0) return { columns: ['image', 'caption'] };
    if (PICTURE_NAME.test(second) || isUrl(second) || base64 === 1) return { columns: ['caption', 'image'] };
    if (isUrl(first)) return { columns: ['image', 'caption'] };
  }
  if (third !== undefined && cells.length === 3 && isSentence(second) && !isSentence(first))
    return { columns: ['image', 'question', 'answer'] };
  return {};
}

/** OFA joins several captions by `&&`, and answers as `1.0|!+yes&&0.3|!+no`. */
function ofa(name: string, cell: string): unknown {
  if (name !== 'caption' && name !== 'answer') return cell;
  const texts = cell.split('&&').map((text) => text.replace(/^[\d.]+\|!\+/, ''));
  return texts.length === 1 ? texts[0] : texts;
}
