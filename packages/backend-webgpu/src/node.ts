/** The backend in Node, with Dawn from the package `webgpu`. */
import { closeSync, existsSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { gpuMemory } from './gpu-memory';
import { adapterName } from './device';
import type { Adapter } from './device';
import { measurements } from './measurements';
import { registerWebGpu } from './register';
import type { WebGpuReport } from './register';
import type { WeightFiles } from './stored-weights';
import { LEVELS } from './tiles';

export const HOW = 'npm install webgpu@0.6.2';

/** Toggles of Dawn: 16-bit floats on NVIDIA cards, which Dawn leaves out with older drivers; subgroup matrices, an experiment of Dawn. */
const F16 = 'vulkan_enable_f16_on_nvidia';
const MATRICES = 'allow_unsafe_apis';

interface Dawn {
  create(options: string[]): GPU;
  globals: object;
}

/**
 * Registers the backend `webgpu` with the adapter that Dawn finds, or with the one named by BLIP2_GPU.
 * @param options software: whether an adapter that computes on the processor may be used
 */
export async function registerWebGpuInNode({ software = false } = {}): Promise<WebGpuReport> {
  const missing = missingDriver(software);
  if (missing) return { ok: false, why: missing };
  const dawn = await loadDawn();
  if (typeof dawn === 'string') return { ok: false, why: dawn };
  Object.assign(globalThis, dawn.globals);
  const { BLIP2_GPU, BLIP2_GPU_LEVEL: asked } = process.env;
  const level = LEVELS.find((one) => one === asked);
  if (asked && !level)
    return { ok: false, why: `BLIP2_GPU_LEVEL: expected one of ${LEVELS.join(', ')}, found ${asked}` };
  try {
    const toggles = level && level !== 'matrices' ? [F16] : [F16, MATRICES];
    const features = `enable-dawn-features=${toggles.join()}`;
    const gpu = dawn.create([features, ...(BLIP2_GPU ? [`adapter=${BLIP2_GPU}`] : [])]);
    const report = await registerWebGpu({ gpu, software, level, measurements }, weightFiles);
    return report.adapter && !report.adapter.software ? withMemory(report, report.adapter) : report;
  } catch (error) {
    const { message } = error as Error; // lists the adapters
    return { ok: false, why: BLIP2_GPU ? `BLIP2_GPU=${BLIP2_GPU}: ${message}` : `webgpu: ${message}` };
  }
}

function withMemory(report: WebGpuReport, adapter: Adapter): WebGpuReport {
  const memory = gpuMemory(adapter.vendor, adapterName(adapter));
  return memory === undefined
    ? report
    : { ...report, memory, why: `${report.why}, ${(memory / 1e9).toFixed(1)} GB` };
}

/** The package, or why it does not load. */
async function loadDawn(): Promise<Dawn | string> {
  try {
    const name = 'webgpu'; // optional: bundlers and type checkers must not resolve it
    return (await import(name)) as Dawn;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const absent = code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND';
    return absent ? `the package webgpu is not installed: ${HOW}` : `webgpu: ${message.split('\n')[0]}`;
  }
}

/** Files that describe Vulkan drivers on Linux. Dawn prints warnings if there is none, so it is not loaded then. */
function vulkanDrivers(): string[] {
  const named = process.env.VK_DRIVER_FILES ?? process.env.VK_ICD_FILENAMES;
  if (named !== undefined) return named.split(':').filter((file) => existsSync(file));
  const { XDG_DATA_HOME, XDG_DATA_DIRS = '/usr/local/share:/usr/share', HOME = '' } = process.env;
  const data = [XDG_DATA_HOME ?? join(HOME, '.local/share'), ...XDG_DATA_DIRS.split(':')];
  const folders = ['/etc', ...data].map((folder) => join(folder, 'vulkan/icd.d'));
  return folders.flatMap((folder) =>
    existsSync(folder) ? readdirSync(folder).map((file) => join(folder, file)) : [],
  );
}

function missingDriver(software: boolean): string | undefined {
  if (process.platform !== 'linux') return undefined;
  const drivers = vulkanDrivers();
  const real = drivers.filter((file) => software || !/swiftshader|lvp_icd/.test(file));
  if (real.length > 0) return undefined;
  return drivers.length > 0
    ? 'no GPU: the Vulkan drivers of this machine compute on the processor'
    : 'no Vulkan driver: install that of the GPU (NVIDIA: its driver; AMD and Intel: mesa-vulkan-drivers), and libvulkan1';
}

/** Files of this machine. */
export const weightFiles: WeightFiles = { read: readFile, stamp };

/** Changes when a file is written, replaced or deleted. */
function stamp(file: string): string {
  const found = statSync(file, { bigint: true, throwIfNoEntry: false });
  return found ? [found.dev, found.ino, found.size, found.mtimeNs].join(' ') : 'gone';
}

/** @throws Error if the file ends before */
function readFile(file: string, at: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const handle = openSync(file, 'r');
  try {
    for (let done = 0; done < length;) {
      const count = readSync(handle, bytes, done, length - done, at + done);
      if (count === 0) throw new Error(`${file}: expected ${at + length} bytes, found ${at + done}`);
      done += count;
    }
  } finally {
    closeSync(handle);
  }
  return bytes;
}
