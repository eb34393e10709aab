import { constants } from 'node:os';
import { describe, expect, it } from 'vitest';
import { withErrorNames } from './system-errors';

/** As Node writes it; a name that libuv lacks is the same text as its description. */
const nodes = (errno: number) =>
  `/data/run: cannot be written: Unknown system error -${errno}: Unknown system error -${errno}, write`;

describe('errors that Node has no name for', () => {
  it.each([
    [116, 'ESTALE: stale file handle'],
    [117, 'EUCLEAN: structure needs cleaning, the file system is damaged'],
    [121, 'EREMOTEIO: remote I/O error'],
    [122, 'EDQUOT: disk quota exceeded'],
    [123, 'ENOMEDIUM: no medium found'],
  ])('have it in messages: %i', (errno, name) => {
    expect(withErrorNames(nodes(errno), 'linux')).toBe(`/data/run: cannot be written: ${name}, write`);
    expect(withErrorNames(`Unknown system error -${errno}`, 'linux')).toBe(name);
  });

  it('have the numbers of this system', () => {
    for (const name of ['ESTALE', 'EDQUOT'] as const)
      expect(withErrorNames(nodes(constants.errno[name]))).toContain(`: ${name}: `);
  });

  it('keep a number that is not in the table, and everything else', () => {
    for (const text of [nodes(1234), nodes(5), 'EIO: i/o error, write', 'Unknown system error'])
      expect(withErrorNames(text, 'linux')).toBe(text);
    expect(withErrorNames(nodes(116), 'win32')).toBe(nodes(116));
  });
});
