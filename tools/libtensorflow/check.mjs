// Starts the backend and multiplies two matrices: node tools/libtensorflow/check.mjs [PACKAGE]
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
// Removed in Node 23, still called by tfjs-node 4.22.
const util = require('node:util');
util.isNullOrUndefined ??= (x) => x === null || x === undefined;
util.isArray ??= Array.isArray;

const name = process.argv[2] ?? '@tensorflow/tfjs-node';
const tf = require(name);
await tf.setBackend('tensorflow');
const { binding, isUsingGpuDevice } = tf.backend();
const y = await tf.matMul(tf.ones([3, 5]), tf.fill([5, 2], 2)).data();
if (!y.every((value) => value === 10))
  throw new Error(`${name}: matmul of ones and twos: expected 10, found ${y}`);
console.log(`${name} runs on TensorFlow ${binding.TF_Version}, ${isUsingGpuDevice ? 'CUDA device' : 'CPU'}`);
