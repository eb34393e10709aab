export { registerWebGpu, webGpuBackend } from './register';
export type { WebGpuReport } from './register';
export type { Adapter, WebGpuOptions } from './device';
export type { BufferBytes } from './buffer-bytes';
export type { WeightFiles } from './stored-weights';
