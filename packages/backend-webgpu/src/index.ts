export { registerWebGpu, webGpuBackend } from './register';
export type { WebGpuReport } from './register';
export type { Adapter, WebGpuOptions } from './device';
