import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { crc32c, fileVersion, scalars, text } from './tensorboard';

/** Bytes that TensorBoard's own writer made of the same events; tools/parity/make_tensorboard_fixture.py. */
const golden = JSON.parse(
  readFileSync(new URL('../../fixtures/tensorboard.json', import.meta.url), 'utf8'),
) as {
  version: string;
  scalars: { values: Record<string, number>; step: number; wall_time: number; hex: string }[];
  text: { tag: string; markdown: string; step: number; wall_time: number; hex: string };
};

describe('TensorBoard events', () => {
  it('have the checksum of RFC 3720', () => {
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(0))).toBe(0);
  });

  it('are byte for byte those of TensorBoard', () => {
    expect(fileVersion(golden.scalars[0].wall_time).toString('hex')).toBe(golden.version);
    for (const { values, step, wall_time, hex } of golden.scalars)
      expect(scalars(values, step, wall_time).toString('hex')).toBe(hex);
    const { tag, markdown, step, wall_time, hex } = golden.text;
    expect(text(tag, markdown, step, wall_time).toString('hex')).toBe(hex);
  });

  it('leave out what is no number', () => {
    expect(scalars({ a: 1, b: 'x', c: undefined }, 3, 5)).toEqual(scalars({ a: 1 }, 3, 5));
  });
});
