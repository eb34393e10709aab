export { registerWebGpu, webGpuBackend } from './register';
export type { WebGpuReport } from './register';
export { tileRates } from './rates';
export type { TileRate } from './rates';
export type { Adapter, Measurements, WebGpuOptions } from './device';
export type { BufferBytes } from './buffer-bytes';
export type { WeightFiles } from './stored-weights';
