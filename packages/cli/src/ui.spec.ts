import { describe, expect, it } from 'vitest';
import type { Io } from './io';
import { bytes, columns, seconds, Ui } from './ui';

function testUi(terminal: boolean, json = false) {
  const seen = { out: '', err: '' };
  const io = {
    stdout: (text: string) => void (seen.out += text),
    stderr: (text: string) => void (seen.err += text),
    terminal,
    columns: 20,
    colour: false,
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
