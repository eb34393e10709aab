import * as tf from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';
import { onEveryBackend } from '../spec/fixtures';
import { conformanceChecks } from './conformance';
import { useBackend } from './node';
import { references } from './own-kernels';

onEveryBackend('conformance', () => {
  for (const { name, run } of conformanceChecks()) it(name, run);
});

it('runs every kernel', async () => {
  await useBackend('cpu');
  const { kernelNames } = await tf.profile(async () => {
    for (const { run } of conformanceChecks()) await run();
    return tf.scalar(0);
  });
  expect(Object.keys(references).filter((name) => !kernelNames.includes(name))).toEqual([]);
});

it('a kernel with a small error does not conform', async () => {
  await useBackend('wasm');
  const kernel = tf.getKernel('NnGelu', 'wasm');
  const check = conformanceChecks().find(({ name }) => name === 'gelu')!;
  await check.run();
  tf.unregisterKernel('NnGelu', 'wasm');
  const kernelFunc: tf.KernelFunc = (p) => tf.mul(kernel.kernelFunc(p) as tf.Tensor, 1.0001);
  tf.registerKernel({ ...kernel, kernelFunc });
  await expect(check.run()).rejects.toThrow(/^gelu, output, element \d+: expected .*, found/);
  tf.unregisterKernel('NnGelu', 'wasm');
  tf.registerKernel(kernel);
});
