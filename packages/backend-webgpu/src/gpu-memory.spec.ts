import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { amdMemory, nvidiaMemory } from './gpu-memory';

describe('memory of a GPU', () => {
  it('is read from nvidia-smi, of the card with the name of the adapter', () => {
    const printed = 'NVIDIA T4, 15360\nNVIDIA H200, 143771\n';
    expect(nvidiaMemory(printed, 'NVIDIA H200')).toBe(143771 * 2 ** 20);
    expect(nvidiaMemory(printed, 'another name')).toBe(15360 * 2 ** 20);
    expect(nvidiaMemory('', 'NVIDIA H200')).toBeUndefined();
    expect(nvidiaMemory('No devices were found', 'NVIDIA H200')).toBeUndefined();
  });
  it('is read from the files of amdgpu', () => {
    const folder = mkdtempSync(join(tmpdir(), 'drm-'));
    expect(amdMemory(folder)).toBeUndefined();
    mkdirSync(join(folder, 'card0-DP-1'));
    mkdirSync(join(folder, 'card1/device'), { recursive: true });
    writeFileSync(join(folder, 'card1/device/mem_info_vram_total'), '17163091968\n');
    expect(amdMemory(folder)).toBe(17163091968);
    expect(amdMemory(join(folder, 'absent'))).toBeUndefined();
  });
});
