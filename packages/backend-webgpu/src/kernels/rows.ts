/** Rows of tables by index. */
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { GpuBackend } from '../backend';
import type { KernelsOf } from '../kernel';
import { sizeOf } from '../kernel';
import { lineOf } from '../program';
import { codecs } from '../wgsl/codecs';
import maximaCode from '../wgsl/column-maxima';
import rowsCode from '../wgsl/rows';
import scatterCode from '../wgsl/scatter-rows';

/** Rows of a stored or ordinary table as float32, by index, or the first M of them, to y. */
export function copyRows(
  backend: GpuBackend,
  x: TensorInfo,
  y: TensorInfo | GPUBuffer,
  M: number,
  indices?: TensorInfo,
): void {
  const { kind, buffer, view } = backend.weight(x);
  const program = {
    name: `rows ${kind}`,
    code: codecs[kind] + rowsCode,
    constants: { INDEXED: indices !== undefined },
  };
  backend.run(program, lineOf(M), [buffer, indices, y], [...view, M]);
}

/** The largest magnitude of each column of x [..., K] → [K], in any encoding. */
export function columnMaxima(backend: GpuBackend, x: TensorInfo): TensorInfo {
  const columns = x.shape[x.shape.length - 1]!;
  const y = backend.allocate([columns]);
  const { kind, buffer, view } = backend.weight(x);
  const program = { name: `column-maxima ${kind}`, code: codecs[kind] + maximaCode };
  backend.run(program, [Math.ceil(columns / 256)], [buffer, y], [...view, sizeOf(x.shape) / columns]);
  return y;
}

export const rows: KernelsOf<'NnGatherRows' | 'NnScatterAddRows'> = {
  NnGatherRows({ x, indices }, _attrs, backend) {
    const M = indices.shape[0]!;
    const y = backend.allocate([M, x.shape[1]!]);
    copyRows(backend, x, y, M, indices);
    return y;
  },

  NnScatterAddRows({ dy, indices }, { rows }, backend) {
    const [M, D] = dy.shape as [number, number];
    const dx = backend.allocate([rows, D]);
    const program = { name: 'scatter-rows', code: scatterCode };
    backend.run(program, lineOf(rows), [dy, indices, dx], [rows, D, M]);
    return dx;
  },
};
