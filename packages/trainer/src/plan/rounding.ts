/** What int8 and int4 cost once: choosing the factors of the weights on some training rows, and rounding them into a file. */
import { bitsOf, blip2Weights, isRounded } from '@blip2/blip2';
import { SMOOTHING_TRIALS } from '@blip2/blip2/node';
import { dispose, linear, normal, quantised, rngKey, storedTensor, tensor, weightBits } from '@blip2/nn';
import type { StoredWeight, Tensor2D } from '@blip2/nn';
import { MEASURED_ROWS } from '../model/smoothing';
import type { PlanFacts, StepCost } from './facts';
import type { Trained } from './layers';
import { isInt4 } from './rounded-weights';

type Bits = 8 | 4;

/** Sides of the matrix that is timed. */
const SIDE = 1024;
/** Rows on which a layer is measured, as in `measureSmoothing`. */
const ROWS = 64;
const TIMES = 3;

/** Seconds for each number of a weight: to round it with some factors, and compute the outputs of the rows. */
export async function roundingCost({
  machine,
}: Pick<PlanFacts, 'machine'>): Promise<Partial<Record<Bits, number>>> {
  const text_bits = weightBits(machine.precision);
  if (!text_bits) return {};
  const values = normal(rngKey(0), SIDE * SIDE);
  const weight: StoredWeight = {
    shape: [SIDE, SIDE],
    data: { bytes: new Uint8Array(values.buffer) },
    encoding: { kind: 'F32' },
  };
  const x = tensor<Tensor2D>(normal(rngKey(1), ROWS * SIDE), [ROWS, SIDE]);
  const costs: Partial<Record<Bits, number>> = {};
  for (const bits of new Set<Bits>([8, text_bits])) {
    const times: number[] = [];
    for (let i = 0; i < TIMES; i++) {
      const begin = performance.now();
      const rounded = storedTensor(quantised(weight, undefined, bits)!, 1)!;
      const y = linear({ weight: rounded }, x);
      await y.data();
      times.push((performance.now() - begin) / 1000);
      dispose([rounded, y]);
    }
    costs[bits] = Math.min(...times) / SIDE ** 2;
  }
  x.dispose();
  return costs;
}

/**
 * Seconds until the rounded weights are there: each is tried with every choice of factors, then rounded and written, which reads it again.
 * Before that, the exact model runs on a few rows.
 */
export function roundingSeconds(facts: PlanFacts, { names }: Trained, step: StepCost): number {
  const { model, machine, measured } = facts;
  const text_bits = weightBits(machine.precision);
  if (!text_bits || !measured.rounding) return 0;
  const trained = new Set(names);
  let seconds = 0;
  for (const [name, shape] of blip2Weights(model.config)) {
    if (!isRounded(name, { shape }) || trained.has(name) || isInt4(model.config, name)) continue;
    const bits = bitsOf(name, text_bits);
    const trials = SMOOTHING_TRIALS[bits] + 1; // and the exact outputs
    seconds += (trials + 1) * (measured.rounding[bits] ?? 0) * shape[0]! * shape[1]!;
  }
  if (seconds === 0) return 0;
  const picture = Math.max(0, ...Object.values(measured.stages).map((stage) => stage?.seconds ?? 0));
  return seconds + MEASURED_ROWS * (picture + (step.below + step.forward) / step.batch);
}
