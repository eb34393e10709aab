/** Random words of the addon, and its errors for wrong arguments. */
import { describe, expect, it } from 'vitest';
import * as reference from '../spec/scalar-reference';
import { addon, loaded } from '../spec/fixtures';

const name = loaded.addon ? 'native addon' : `native addon (SKIPPED: ${loaded.why})`;
describe.skipIf(!loaded.addon)(name, () => {
  it.each([
    ['zero', [0, 0, 0, 0], [0, 0], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]],
    ['ones', [-1, -1, -1, -1], [0xffffffff, 0xffffffff], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]],
    [
      'pi',
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ])('philox: the published test vector "%s"', (_name, counter, key, expected) => {
    const words = Int32Array.from(counter);
    addon.philox(words, key[0]!, key[1]!);
    expect([...words].map((word) => word >>> 0)).toEqual(expected);
    expect(reference.philox(counter, key[0]!, key[1]!)).toEqual(expected);
  });

  it('errors contain the function, the argument, what was expected and what was found', () => {
    const x = new Float32Array(6);
    expect(() => addon.gemm(x, false, x, true, null, x, 1, 2, 2, 2, false, false)).toThrow(
      'native gemm: a: expected 4 elements, found 6',
    );
    expect(() => addon.gatherRows(x, Int32Array.of(0, 3), x, 3, 2)).toThrow(
      'native gatherRows: indices[1]: expected 0 … 2, found 3',
    );
    expect(() => addon.crossEntropy(x, Int32Array.of(0, 3), 0, x, x, 2, 3)).toThrow(
      'native crossEntropy: labels[1]: expected a number below 3, found 3',
    );
    expect(() => addon.copy(x, 1, [1], x, 0, [1], [6])).toThrow('expected at least 7');
    expect(() => addon.relu(x, Int32Array.of(1) as never, new Uint8Array(x.length))).toThrow(
      'native relu: y: expected a Float32Array',
    );
  });

  it('attention, RMSNorm and gated GELU refuse arguments that do not fit', () => {
    const x = new Float32Array(6);
    const lse = new Float32Array(2);
    // B 2, Tq 1, Tk 1, D 3, one head
    const call = (bias: unknown) =>
      [...([2, 1, 1, 3, 1, 1, false, 0, 0, 0, x, x, x, null] as const), bias as null, x, lse] as const;
    for (const bias of [null, x.slice(5), x.slice(4)]) addon.attention(...call(bias));
    const refused = (f: () => void, why: string) => expect(f).toThrow(`native ${why}`);
    refused(() => addon.attention(...call(x)), 'attention: bias: expected 2 elements, found 6');
    refused(() => addon.attention(...call(x.slice(6))), 'attention: bias: expected 2 elements, found 0');
    refused(() => addon.attention(...call(Int32Array.of(1, 2))), 'attention: bias: expected a Float32Array');
    refused(() => addon.attention(...call([1, 2])), 'attention: bias: expected a typed array');
    const gradBias = (bias: unknown) => addon.attentionGradBias(...call(bias), x, lse);
    refused(() => gradBias(null), 'attentionGradBias: bias: expected a typed array');
    refused(() => gradBias(x.slice(5)), 'attentionGradBias: dbias: expected 1 elements, found 2');
    const norm = (mean: Float32Array | null, rstd: Float32Array) =>
      addon.layerNorm(x, x.slice(3), null, 0, x, mean, rstd, 2, 3);
    refused(() => norm(null, x), 'layerNorm: rstd: expected 2 elements, found 6');
    refused(() => norm(x, lse), 'layerNorm: mean: expected 2 elements, found 6');
    refused(() => addon.gatedGelu(x, lse, x), 'gatedGelu: x: expected 6 elements, found 2');
    refused(() => addon.gatedGeluGrad(x, x, x, x, lse), 'gatedGeluGrad: dx: expected 6 elements, found 2');
  });

  it('settings refuse unsupported values', () => {
    expect(() => addon.setInstructionSet('none')).toThrow(
      "expected an instruction set that this processor and build support, found 'none'",
    );
    expect(() => addon.setThreads(0)).toThrow('count: expected 1 … 1024, found 0');
  });
});
