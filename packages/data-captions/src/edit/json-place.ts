/** Where a value is in JSON text, so that it can be replaced and every other character stays. */

/** A key of an object or an index of a list, from the outermost on. */
export type JsonPath = readonly (string | number)[];

/** Start and end of a value in valid JSON; undefined if the path leads nowhere. Of equal keys the last counts, as in JSON.parse. */
export function placeInJson(text: string, path: JsonPath): [start: number, end: number] | undefined {
  let start = skipSpace(text, 0);
  for (const step of path) {
    const next = typeof step === 'number' ? itemAt(text, start, step) : memberAt(text, start, step);
    if (next === undefined) return undefined;
    start = next;
  }
  return [start, endOfValue(text, start)];
}

function itemAt(text: string, start: number, index: number): number | undefined {
  if (text[start] !== '[') return undefined;
  let at = skipSpace(text, start + 1);
  for (let i = 0; text[at] !== ']'; i++) {
    if (i === index) return at;
    at = afterComma(text, endOfValue(text, at));
  }
  return undefined;
}

function memberAt(text: string, start: number, key: string): number | undefined {
  if (text[start] !== '{') return undefined;
  let found: number | undefined;
  let at = skipSpace(text, start + 1);
  while (text[at] !== '}') {
    const end = endOfString(text, at);
    const value = skipSpace(text, skipSpace(text, end) + 1); // after the colon
    if (JSON.parse(text.slice(at, end)) === key) found = value;
    at = afterComma(text, endOfValue(text, value));
  }
  return found;
}

function afterComma(text: string, end: number): number {
  const at = skipSpace(text, end);
  return text[at] === ',' ? skipSpace(text, at + 1) : at;
}

function skipSpace(text: string, at: number): number {
  while (/\s/.test(text[at] ?? '')) at++;
  return at;
}

function endOfString(text: string, at: number): number {
  for (at++; text[at] !== '"'; at++) if (text[at] === '\\') at++;
  return at + 1;
}

function endOfValue(text: string, at: number): number {
  if (text[at] === '"') return endOfString(text, at);
  if (text[at] !== '{' && text[at] !== '[') {
    while (at < text.length && !/[\s,\]}]/.test(text[at])) at++;
    return at;
  }
  for (let depth = 0; ;) {
    if (text[at] === '"') at = endOfString(text, at);
    else {
      if (text[at] === '{' || text[at] === '[') depth++;
      if (text[at] === '}' || text[at] === ']') depth--;
      at++;
    }
    if (depth === 0) return at;
  }
}
