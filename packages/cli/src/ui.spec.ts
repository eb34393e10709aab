import { describe, expect, it } from 'vitest';
import type { Io } from './io';
import { paint } from './printable';
import { bytes, columns, seconds, Ui } from './ui';

function testUi(terminal: boolean, json = false) {
  const seen = { out: '', err: '' };
  const io = {
    stdout: (text: string) => void (seen.out += text),
    stderr: (text: string) => void (seen.err += text),
    terminal,
    columns: 20,
    colour: { stdout: true, stderr: false },
    env: {},
  } as unknown as Io;
  return { seen, ui: new Ui(io, json) };
}

describe('Ui', () => {
  it('rewrites one progress line on a terminal, truncated to its width, and clears it before other output', () => {
    const { ui, seen } = testUi(true);
    ui.progress('a', 'x'.repeat(50));
    ui.result({}, 'done');
    expect(seen).toEqual({ err: `\r${'x'.repeat(19)}\x1b[K\r\x1b[K`, out: 'done\n' });
  });

  it('writes few and plain progress lines if stderr is not a terminal', () => {
    const { ui, seen } = testUi(false);
    for (let i = 0; i < 99; i++) ui.progress('a', `${i} %`);
    ui.progress('a', '100 %', true);
    expect(seen.err).toBe('100 %\n');
  });

  it('writes only the document to stdout with --json', () => {
    const { ui, seen } = testUi(false, true);
    ui.log('hello');
    ui.result({ a: 1 }, 'text');
    expect(JSON.parse(seen.out)).toEqual({ a: 1 });
    expect(seen.err).toBe('hello\n');
  });
});

describe('printed text', () => {
  const hostile = 'a\x1b]0;title\x07\x1b[2J\x9b31m\u202Eb\u2028c\r\x7f';
  const escaped = 'a\\u001b]0;title\\u0007\\u001b[2J\\u009b31m\\u202eb\\u2028c\\u000d\\u007f';

  it('has no control characters, whatever its source', () => {
    for (const terminal of [true, false]) {
      const { ui, seen } = testUi(terminal);
      ui.log(hostile);
      ui.write(hostile);
      ui.result({}, () => paint.red(hostile));
      expect(seen.err).toBe(`${escaped}\n`);
      expect(seen.out).toBe(`${escaped}\x1b[31m${escaped}\x1b[39m\n`);
      seen.err = '';
      ui.progress('images', hostile.slice(0, 9), true);
      const line = seen.err.replace('\r', '').replace('\x1b[K', '');
      expect(line).not.toMatch(/(?!\n)\p{Cc}/u);
    }
  });

  it('keeps letters of any script, emoji that are joined, line feeds and tabs', () => {
    const { ui, seen } = testUi(false);
    const text = 'naïve שלום नमस्ते 日本 👩‍👩‍👧 🏴󠁧󠁢󠁥󠁮󠁧󠁿\n\tx';
    ui.log(text);
    expect(seen.err).toBe(`${text}\n`);
  });

  it('is the same value in a JSON document', () => {
    const { ui, seen } = testUi(false, true);
    ui.result({ [hostile]: hostile }, '');
    expect(seen.out).not.toMatch(/(?!\n)[\p{Cc}\p{Bidi_Control}]/u);
    expect(JSON.parse(seen.out)).toEqual({ [hostile]: hostile });
  });

  it('is coloured for the stream that is a terminal only', () => {
    const { ui, seen } = testUi(false);
    ui.log(paint.red('error:'));
    ui.result({}, paint.bold('title'));
    expect(seen).toEqual({ err: 'error:\n', out: '\x1b[1mtitle\x1b[22m\n' });
  });
});

describe('formats', () => {
  it('aligns columns', () => {
    expect(
      columns([
        ['part', 'n'],
        ['a', 1234567],
        ['bcd', 5],
      ]),
    ).toBe('part  n\na     1,234,567\nbcd           5');
  });

  it('prints sizes and times', () => {
    expect([1, 2048, 5.5 * 2 ** 20].map(bytes)).toEqual(['1 B', '2.0 KiB', '5.5 MiB']);
    expect([2.34, 42, 95, 3725].map(seconds)).toEqual(['2.3 s', '42 s', '1 min 35 s', '1 h 02 min']);
  });
});
