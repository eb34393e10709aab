/** Shared helpers of the specs. */
import { beforeAll, describe, expect } from 'vitest';
import { firstDifference } from '../src/conformance';
import type { Tensor } from '../src/index';
import { availableBackends, useBackend } from '../src/node';

const backends = await availableBackends();

/** Runs the suite on each backend that starts on this machine. */
export function onEveryBackend(subject: string, suite: () => void): void {
  describe.each(backends)(`${subject} on %s`, (backend) => {
    beforeAll(async () => void (await useBackend(backend)));
    suite();
  });
}

export async function expectClose(x: Tensor, values: ArrayLike<number>, tolerance = 1e-5): Promise<void> {
  expect(firstDifference(await x.data(), values, tolerance)).toBeUndefined();
}
