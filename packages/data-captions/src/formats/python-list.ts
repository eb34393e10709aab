/**
 * Lists as Python and numpy print them: `['a', "it's"]`, `['red' 'red']`, `array(['a'], dtype=object)`, `[{'answer': 'red'}]`,
 * which is what pandas and datasets write into a cell of CSV. Reference: Python's repr, numpy's array2string.
 */

/** The list in a text, as JSON or as Python prints it; undefined for other text, such as words in brackets. */
export function listOf(text: string): unknown[] | undefined {
  if (!/^\s*(?:\[|\(|array\()/.test(text) || !/[\])]\s*$/.test(text)) return undefined;
  const json = parseJson(text);
  if (Array.isArray(json)) return json;
  const found = START.test(text) ? parseRepr(text) : undefined;
  return Array.isArray(found) ? found : undefined;
}
const START = /^\s*(?:array\(\s*)?[[(]\s*(?:\]|\[|['"]|\{|None|True|False|array\()/;

/** Whether a text begins as a printed list of texts but cannot be read as one: cut by numpy, or damaged. */
export const isBrokenList = (text: string) =>
  /^\s*(?:array\(\s*)?\[\s*['"{]/.test(text) && listOf(text) === undefined;

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const TOKEN =
  /\s*(?:('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|([-+]?\d[\w.+-]*)|(None|True|False|nan)\b|(array\(|dtype=\w+|[[\](){},:]))/suy;
const CONSTANTS: Record<string, unknown> = { None: null, True: true, False: false, nan: null };
const CLOSING: Record<string, string> = { '[': ']', '(': ')', '{': '}', 'array(': ')' };
const MOST_DEPTH = 20;

/** The value of a Python expression of literals; undefined if it is anything else. */
function parseRepr(text: string): unknown {
  const tokens: RegExpExecArray[] = [];
  TOKEN.lastIndex = 0;
  for (let end = 0; end < text.trimEnd().length; end = TOKEN.lastIndex) {
    const token = TOKEN.exec(text);
    if (!token) return undefined;
    tokens.push(token);
  }
  let next = 0;
  const value = (depth: number): unknown => {
    const [, quoted, number, constant, mark] = tokens[next++] ?? [];
    if (quoted !== undefined) return unquoted(quoted);
    if (number !== undefined) return Number(number);
    if (constant !== undefined) return CONSTANTS[constant];
    const closing = CLOSING[mark ?? ''];
    if (closing === undefined || depth > MOST_DEPTH) throw new SyntaxError();
    const items: unknown[] = [];
    const keys: unknown[] = [];
    for (; tokens[next]?.[4] !== closing;) {
      if (next >= tokens.length) throw new SyntaxError();
      if (tokens[next][4] === ',' || tokens[next][4]?.startsWith('dtype')) next++;
      else if (tokens[next][4] === ':' && mark === '{') keys.push((next++, items.pop()));
      else items.push(value(depth + 1));
    }
    next++;
    if (mark === '{') return Object.fromEntries(items.map((item, i) => [String(keys[i]), item]));
    return mark === 'array(' ? items[0] : items;
  };
  try {
    const found = value(0);
    return next === tokens.length ? found : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

const ESCAPES: Record<string, string> = { n: '\n', t: '\t', r: '\r', '\n': '' };
function unquoted(literal: string): string {
  return literal
    .slice(1, -1)
    .replace(/\\(?:x([\da-f]{2})|u([\da-f]{4})|U([\da-f]{8})|(.))/gis, (_, x, u, U, one: string) => {
      const code = (x ?? u ?? U) as string | undefined;
      if (code !== undefined && Number.parseInt(code, 16) <= 0x10ffff)
        return String.fromCodePoint(Number.parseInt(code, 16));
      return one === undefined ? '\ufffd' : (ESCAPES[one] ?? one);
    });
}
