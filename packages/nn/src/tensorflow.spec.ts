import util from 'node:util';
import { env } from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { loadTensorflow } from './tensorflow';

const absent = (name: string) => {
  throw Object.assign(new Error(`Cannot find module '${name}'`), { code: 'MODULE_NOT_FOUND' });
};
const module = (isUsingGpuDevice: boolean) => ({
  findBackend: () => ({ isUsingGpuDevice, binding: { TF_Version: '2.99.0' } }),
});

describe('loadTensorflow', () => {
  it('explains how to install it if neither package is installed', () => {
    expect(loadTensorflow(absent)).toEqual({
      ok: false,
      gpu: false,
      why: expect.stringMatching(
        /neither @tensorflow\/tfjs-node-gpu nor @tensorflow\/tfjs-node is installed .*libtensorflow:setup/,
      ),
    });
  });

  it('tries the CUDA package first, and reports whether there is a device', () => {
    const tried: string[] = [];
    const found = loadTensorflow((name) => (tried.push(name), module(true)));
    expect(tried).toEqual(['@tensorflow/tfjs-node-gpu']);
    expect(found).toEqual({
      ok: true,
      gpu: true,
      why: 'TensorFlow 2.99.0, CUDA device (@tensorflow/tfjs-node-gpu)',
    });
    expect(loadTensorflow(() => module(false))).toMatchObject({ ok: true, gpu: false });
  });

  it('goes on to the CPU package', () => {
    const found = loadTensorflow((name) => (name.endsWith('gpu') ? absent(name) : module(false)));
    expect(found.why).toBe('TensorFlow 2.99.0, CPU (@tensorflow/tfjs-node)');
  });

  it('reports a package that is installed but does not load', () => {
    const found = loadTensorflow((name) => {
      if (name.endsWith('gpu')) throw new Error('libcudart.so.11.0: cannot open\nstack');
      return absent(name);
    });
    expect(found).toMatchObject({ ok: false, gpu: false });
    expect(found.why).toContain('@tensorflow/tfjs-node-gpu: libcudart.so.11.0: cannot open');
    // A missing module inside the package does not mean that the package is missing.
    expect(loadTensorflow(() => absent('long')).why).toContain("tfjs-node: Cannot find module 'long'");
  });

  it('silences the warnings of a second tfjs only if there is one', () => {
    const before = env().getBool('PROD');
    env().set('PROD', false);
    loadTensorflow(absent);
    expect(env().getBool('PROD')).toBe(false);
    loadTensorflow(() => module(false));
    expect(env().getBool('PROD')).toBe(true);
    env().set('PROD', before);
  });

  it('restores the functions of Node 23 that tfjs-node calls', () => {
    loadTensorflow(absent);
    const old = util as unknown as { isNullOrUndefined(x: unknown): boolean; isArray(x: unknown): boolean };
    expect([old.isNullOrUndefined(undefined), old.isNullOrUndefined(0), old.isArray([])]).toEqual([
      true,
      false,
      true,
    ]);
  });
});
