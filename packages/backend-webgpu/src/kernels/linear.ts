/** The linear layer, with and without a low-rank adapter. */
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { KernelsOf } from '../kernel';
import { sizeOf } from '../kernel';
import { dropOf, product } from './matmul';
import type { Product } from './matmul';
import { columnSums } from './norm';

/** Rows and columns of [..., columns]. */
const dims = ({ shape }: TensorInfo): [rows: number, columns: number] => [
  sizeOf(shape.slice(0, -1)),
  shape[shape.length - 1]!,
];

const like = ({ shape }: TensorInfo, columns: number) => [...shape.slice(0, -1), columns];

export const linear: KernelsOf<
  | 'NnLinear'
  | 'NnLinearGradInput'
  | 'NnLinearGradWeight'
  | 'NnLoraLinear'
  | 'NnLoraLinearGradLow'
  | 'NnLoraLinearGradInput'
  | 'NnLoraLinearGradA'
  | 'NnLoraLinearGradB'
  | 'NnSumRows'
> = {
  NnLinear({ x, weight, bias, residual }, { activation }, backend) {
    const [[M, K], N] = [dims(x), weight.shape[0]!];
    const p = { M, N, K, a: x, b: weight, turnedB: true, bias, activation, residual };
    return product(backend, p, like(x, N));
  },

  NnLinearGradInput({ dy, weight }, _attrs, backend) {
    const [[M, K], N] = [dims(dy), weight.shape[1]!];
    return product(backend, { M, N, K, a: dy, b: weight, turnedB: false }, like(dy, N));
  },

  NnLinearGradWeight({ dy, x }, _attrs, backend) {
    const [[K, M], N] = [dims(dy), dims(x)[1]];
    return product(backend, { M, N, K, a: dy, turnedA: true, b: x, turnedB: false }, [M, N]);
  },

  NnLoraLinear({ x, weight, bias, residual, lora_A, lora_B }, attrs, backend) {
    const [[M, K], N, R] = [dims(x), weight.shape[0]!, lora_A.shape[0]!];
    const down: Product = {
      M,
      N: R,
      K,
      a: x,
      b: lora_A,
      turnedB: true,
      exact: true,
      drop: dropOf(attrs, 'a'),
    };
    const low = product(backend, down, like(x, R));
    const up = { a: low, b: lora_B, R, turned: true };
    const p = { M, N, K, a: x, b: weight, turnedB: true, bias, residual, low: up, alpha: attrs.scaling };
    return [product(backend, p, like(x, N)), low];
  },

  NnLoraLinearGradLow({ dy, lora_B }, { scaling }, backend) {
    const [[M, K], N] = [dims(dy), lora_B.shape[1]!];
    const p: Product = { M, N, K, a: dy, b: lora_B, turnedB: false, exact: true, alpha: scaling };
    return product(backend, p, like(dy, N));
  },

  NnLoraLinearGradInput({ dy, weight, lora_A, dlow }, attrs, backend) {
    const [[M, K], N, R] = [dims(dy), weight.shape[1]!, lora_A.shape[0]!];
    const low = { a: dlow, b: lora_A, R, turned: false };
    const drop = dropOf(attrs, 'low');
    return product(backend, { M, N, K, a: dy, b: weight, turnedB: false, low, drop }, like(dy, N));
  },

  NnLoraLinearGradA({ x, dlow }, attrs, backend) {
    const [[K, M], N] = [dims(dlow), dims(x)[1]];
    const drop = dropOf(attrs, 'b');
    return product(backend, { M, N, K, a: dlow, turnedA: true, b: x, turnedB: false, drop }, [M, N]);
  },

  NnLoraLinearGradB({ dy, low }, { scaling }, backend) {
    const [[K, M], N] = [dims(dy), dims(low)[1]];
    const p = { M, N, K, a: dy, turnedA: true, b: low, turnedB: false, alpha: scaling };
    return product(backend, p, [M, N]);
  },

  NnSumRows: ({ x }, _attrs, backend) => columnSums(backend, 0, { x }),
};
