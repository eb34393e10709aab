/** Bodies that would take much more time and memory than they have bytes, found before they are parsed. */
import { HttpError } from './errors';

/** Bytes of JSON outside of texts: a chat has some hundreds. */
const MOST_STRUCTURE = 100_000;
const MOST_DEPTH = 32;
/** Quotation marks of JSON, in texts too. */
const MOST_QUOTES = 100_000;
/** Parts of a form. */
const MOST_PARTS = 64;

const [QUOTE, BACKSLASH] = [0x22, 0x5c];
const [OPEN, CLOSE] = [new Set([0x5b, 0x7b]), new Set([0x5d, 0x7d])];

/** Texts are skipped, so that a picture in base64 costs no time. @throws HttpError (400) for JSON that is nested or divided too much */
export function checkJsonShape(bytes: Uint8Array): void {
  let [depth, structure, quotes] = [0, 0, 0];
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at];
    if (byte === QUOTE) {
      for (
        at = bytes.indexOf(QUOTE, at + 1);
        at > 0 && isEscaped(bytes, at);
        at = bytes.indexOf(QUOTE, at + 1)
      )
        if (++quotes > MOST_QUOTES) throw tooMuch();
      if (at < 0) return; // no JSON, as the parser finds
      if (++quotes > MOST_QUOTES) throw tooMuch();
    } else if (OPEN.has(byte)) depth++;
    else if (CLOSE.has(byte)) depth--;
    if (++structure > MOST_STRUCTURE || depth > MOST_DEPTH) throw tooMuch();
  }
}

function isEscaped(bytes: Uint8Array, at: number): boolean {
  let before = at;
  while (bytes[before - 1] === BACKSLASH) before--;
  return (at - before) % 2 === 1;
}

const tooMuch = () =>
  new HttpError(
    400,
    `expected JSON with a picture and some texts, found more parts or more than ${MOST_DEPTH} levels`,
    'invalid_json',
  );

/** @throws HttpError (400) for a form of too many parts */
export function checkFormShape(bytes: Buffer, boundary: string): void {
  let parts = 0;
  for (let at = bytes.indexOf(`--${boundary}`); at >= 0; at = bytes.indexOf(`--${boundary}`, at + 1))
    if (++parts > MOST_PARTS)
      throw new HttpError(400, `expected a form of at most ${MOST_PARTS} parts, found more`, 'invalid_form');
}
