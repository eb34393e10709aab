import { describe, expect, it } from 'vitest';
import { endsWithStop } from './stop-strings';

/** Bytes as ids; half characters become the replacement character, as in byte-level tokenizers. */
const bytes = { decode: (ids: readonly number[]) => Buffer.from(ids).toString('utf8') };
const pieces = ['he', 'l', 'lo w', 'orld', '.', ' '];
const words = { decode: (ids: readonly number[]) => ids.map((id) => pieces[id]).join('') };

describe('endsWithStop', () => {
  it('finds a string that the last token completes, over several tokens or within one', () => {
    expect(endsWithStop([0, 1, 2], ['llo'], words)).toBe(true);
    expect(endsWithStop([0, 1, 2], ['lo'], words)).toBe(true);
    expect(endsWithStop([0, 1, 2, 3], ['hello world'], words)).toBe(true);
    expect(endsWithStop([0, 1, 2, 3], ['rl', 'x'], words)).toBe(true);
  });

  it('does not find one that ended earlier or is incomplete', () => {
    expect(endsWithStop([0, 1, 2], ['he'], words)).toBe(false);
    expect(endsWithStop([0, 1, 2], ['world'], words)).toBe(false);
    expect(endsWithStop([4, 5], ['.'], words)).toBe(false);
    expect(endsWithStop([4, 5, 4], ['.'], words)).toBe(true);
    expect(endsWithStop([0], [], words)).toBe(false);
  });

  it('finds a character of several tokens only at its last token', () => {
    const text = [...Buffer.from('a🐶')];
    expect(endsWithStop(text, ['🐶'], bytes)).toBe(true);
    expect(endsWithStop(text.slice(0, -1), ['🐶'], bytes)).toBe(false);
    expect(endsWithStop([...Buffer.from('é'), 0xc3], ['é'], bytes)).toBe(false); // it ended one token earlier
  });
});
