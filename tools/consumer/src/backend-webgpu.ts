import { registerWebGpu, tileRates, webGpuBackend } from '@blip2/backend-webgpu';
import type { Measurements, TileRate, WebGpuOptions, WebGpuReport } from '@blip2/backend-webgpu';
import { registerWebGpuInNode } from '@blip2/backend-webgpu/node';
import { startBackend } from '@blip2/nn';
import { same } from './types.js';

same<ReturnType<typeof registerWebGpu>, Promise<WebGpuReport>>(true);
same<ReturnType<typeof registerWebGpuInNode>, Promise<WebGpuReport>>(true);
same<ReturnType<typeof tileRates>, Promise<TileRate[]>>(true);
declare const options: WebGpuOptions;
same<typeof options.measurements, Measurements | undefined>(true);
void startBackend(webGpuBackend(options));
// @ts-expect-error it needs navigator.gpu
void startBackend(webGpuBackend({}));
