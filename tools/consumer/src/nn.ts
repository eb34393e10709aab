import {
  attention,
  crossEntropy,
  linear,
  reshape,
  runKernel,
  tensor,
  valueAndGrads,
  variable,
} from '@blip2/nn';
import { conformanceChecks } from '@blip2/nn/conformance';
import type { Check } from '@blip2/nn/conformance';
import { useBackend } from '@blip2/nn/node';
import type { BackendReport, Linear, Scalar, Tensor, Tensor2D, Tensor3D } from '@blip2/nn';
import { same } from './types.js';

const w = tensor<Tensor2D>(new Float32Array(6), [2, 3]);
const leaf = variable(w, 'weight');
const p: Linear = { weight: w };
const trained: Linear = { weight: leaf };
const y = linear(p, w);

same<typeof y, Tensor2D>(true);
same<typeof trained.weight, Tensor2D>(true);
same<ReturnType<typeof reshape>, Tensor>(true);
same<ReturnType<typeof crossEntropy>, Scalar>(true);
same<ReturnType<typeof attention>, Tensor3D>(true);
same<ReturnType<typeof useBackend>, Promise<BackendReport>>(true);
same<ReturnType<typeof valueAndGrads>['grads'], Tensor[]>(true);

void useBackend('native', { precision: 'bfloat16' });
// @ts-expect-error a backend that there is not
void useBackend('cuda');
// @ts-expect-error a layer needs its weight
linear({}, w);
// @ts-expect-error labels are whole numbers
crossEntropy(w, new Float32Array(2));

same<ReturnType<typeof conformanceChecks>, Check[]>(true);
for (const { run } of conformanceChecks()) void run();

const total = runKernel('NnSumRows', { x: w }, {});
same<typeof total, Tensor>(true);
// @ts-expect-error a misspelt input
runKernel('NnSumRows', { y: w }, {});
// @ts-expect-error a missing input
runKernel('NnLinear', { x: w }, {});
// @ts-expect-error a list takes a list
runKernel('NnSquaredSum', { xs: w }, {});
