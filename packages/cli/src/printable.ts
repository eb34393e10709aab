/** Text for a terminal. Captions, file names and error texts may be a stranger's: none of them can control it. */
import { randomUUID } from 'node:crypto';
import pc from 'picocolors';

/** Replaces ESC in painted text until it is printed. It is random, so no other text contains it. */
const MARK = `\uFDD0${randomUUID()}`;
const PAINTED = new RegExp(`${MARK}(\\[\\d+m)`, 'g');

/** Control characters except line feed and tab, marks that reorder text, and line separators. */
const CONTROL = /[\p{Bidi_Control}\p{Zl}\p{Zp}]|(?![\n\t])\p{Cc}/gu;

/** Writes control characters as `\u001b` and so on; inside a JSON string, the result has the same value. */
export function escapeControls(text: string): string {
  return text.replace(CONTROL, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** Escapes control characters; the colours of {@link paint} become escape sequences, or nothing. */
export function printable(text: string, colour: boolean): string {
  return escapeControls(text).replace(PAINTED, colour ? '\x1b$1' : '');
}

const colours = pc.createColors(true);
const painter = (format: (text: string) => string) => (text: string) =>
  format(escapeControls(text)).replaceAll('\x1b', MARK);

/** Colours for text that {@link printable} prints. */
export const paint = {
  bold: painter(colours.bold),
  dim: painter(colours.dim),
  red: painter(colours.red),
  green: painter(colours.green),
  yellow: painter(colours.yellow),
};
