/** What the specs of the ops share. */
import { beforeAll, describe, expect } from 'vitest';
import { fold, normal, rngKey, tensor } from './index';
import { availableBackends, useBackend } from './node';
import type { Tensor } from './index';

const backends = await availableBackends();

/** The suite once for each backend that starts here. */
export function onEveryBackend(subject: string, suite: () => void): void {
  describe.each(backends)(`${subject} on %s`, (backend) => {
    beforeAll(async () => void (await useBackend(backend)));
    suite();
  });
}

/** A reproducible tensor of unit scale. */
export function random<T extends Tensor = Tensor>(name: string, ...shape: number[]): T {
  return tensor(
    normal(
      fold(rngKey(7), name),
      shape.reduce((a, b) => a * b, 1),
    ),
    shape,
  ) as T;
}

export async function expectClose(x: Tensor, values: ArrayLike<number>, tolerance = 1e-5): Promise<void> {
  const got = await x.data();
  expect(got.length).toBe(values.length);
  let worst = 0;
  for (let i = 0; i < got.length; i++)
    worst = Math.max(worst, Math.abs(got[i] - values[i]) / Math.max(1, Math.abs(values[i])));
  expect(worst).toBeLessThan(tolerance);
}

export const fdTolerance = 2e-3; // float32 central differences with ε = 1e-2 leave about 1e-4 of rounding
