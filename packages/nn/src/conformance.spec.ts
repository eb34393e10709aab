import * as tf from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';
import { onEveryBackend } from '../spec/fixtures';
import { conformanceChecks } from './conformance';
import { useBackend } from './node';

onEveryBackend('conformance', () => {
  for (const { name, run } of conformanceChecks()) it(name, run);
});

it('a kernel with a small error does not conform', async () => {
  await useBackend('cpu');
  const kernel = tf.getKernel('NnGelu', 'cpu');
  const check = conformanceChecks().find(({ name }) => name.startsWith('NnGelu,'))!;
  await check.run();
  tf.unregisterKernel('NnGelu', 'cpu');
  const kernelFunc: tf.KernelFunc = (p) => tf.mul(kernel.kernelFunc(p) as tf.Tensor, 1.0001);
  tf.registerKernel({ ...kernel, kernelFunc });
  await expect(check.run()).rejects.toThrow(/^NnGelu, output 0, element \d+: expected .*, found/);
  tf.unregisterKernel('NnGelu', 'cpu');
  tf.registerKernel(kernel);
});
