/** Pictures written as base64 text, bare or as a `data:` address, inside text files. They are decoded when needed. */
import type { Json } from './row';

/** How base64 of JPEG, PNG, GIF, WebP, BMP, TIFF and AVIF begins. */
const START =
  /^(?:data:image\/[\w.+-]+;base64,|(?=\/9j\/|iVBORw0K|R0lGOD|UklGR|Qk[0-3]|SUkqA|TU0AK|AAAA))\s*[A-Za-z0-9+/_-]{60}/;

/** Whether a text is a picture. Only its beginning is looked at. */
export const isBase64 = (text: string) => text.length > 80 && START.test(text.slice(0, 200));

/** Marks the place of a picture in a row whose picture has been taken out. */
const TAKEN = '(base64 picture)';

/** Takes base64 pictures out of the values of a row, also from lists and records inside. */
export function takeBase64(values: Json): { values: Json; pictures: string[] } {
  const pictures: string[] = [];
  const walk = (value: unknown, depth: number): unknown => {
    if (typeof value === 'string') {
      if (!isBase64(value)) return value;
      pictures.push(value);
      return TAKEN;
    }
    if (
      typeof value !== 'object' ||
      value === null ||
      ArrayBuffer.isView(value) ||
      value instanceof Date ||
      depth > 6
    )
      return value;
    if (Array.isArray(value)) return value.map((item) => walk(item, depth + 1));
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, walk(item, depth + 1)]));
  };
  // Most rows have none: they are not copied.
  if (
    !Object.values(values).some(
      (value) => typeof value === 'object' || (typeof value === 'string' && isBase64(value)),
    )
  )
    return { values, pictures };
  const taken = walk(values, 0) as Json;
  return pictures.length > 0 ? { values: taken, pictures } : { values, pictures };
}

export const isTaken = (value: unknown) => value === TAKEN;

/** The bytes of a picture. Backslashes are JSON's (`\/`). @throws Error when it is not base64 */
export function fromBase64(text: string): Uint8Array {
  const bare = text
    .replace(/^data:[^,]*,/, '')
    .replaceAll('\\', '')
    .replace(/\s+/g, '');
  if (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(bare)) throw new Error('the text is not base64');
  return Buffer.from(bare, 'base64');
}
