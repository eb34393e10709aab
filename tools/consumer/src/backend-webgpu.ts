import { registerWebGpu, webGpuBackend } from '@blip2/backend-webgpu';
import type { WebGpuOptions, WebGpuReport } from '@blip2/backend-webgpu';
import { registerWebGpuInNode } from '@blip2/backend-webgpu/node';
import { startBackend } from '@blip2/nn';
import { same } from './types.js';

same<ReturnType<typeof registerWebGpu>, Promise<WebGpuReport>>(true);
same<ReturnType<typeof registerWebGpuInNode>, Promise<WebGpuReport>>(true);
declare const options: WebGpuOptions;
void startBackend(webGpuBackend(options));
// @ts-expect-error it needs navigator.gpu
void startBackend(webGpuBackend({}));
