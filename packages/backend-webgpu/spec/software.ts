/** Vulkan drivers that compute on the processor, for machines without a GPU: SwiftShader of Debian's chromium, and lavapipe. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';
const DRIVERS = '/usr/share/vulkan/icd.d';

/** Of mesa-vulkan-drivers with Vulkan 1.4, which is version 25; Dawn refuses 22, that of Debian 12. */
function lavapipe(): string | undefined {
  const name = existsSync(DRIVERS) && readdirSync(DRIVERS).find((file) => file.startsWith('lvp_icd'));
  if (!name) return undefined;
  const file = join(DRIVERS, name);
  const { ICD } = JSON.parse(readFileSync(file, 'utf8')) as { ICD: { api_version: string } };
  const [major, minor] = ICD.api_version.split('.').map(Number);
  return major === 1 && minor < 4 ? undefined : file;
}

/** Sets the first driver that there is for this process; false if there is none. A driver that is set already stays. */
function use(drivers: readonly (string | undefined)[]): boolean {
  const { VK_ICD_FILENAMES, VK_DRIVER_FILES } = process.env;
  if (VK_ICD_FILENAMES || VK_DRIVER_FILES) return true;
  const driver = drivers.find((file) => file && existsSync(file));
  if (driver) process.env.VK_ICD_FILENAMES = driver;
  return driver !== undefined;
}

export const useSoftwareDriver = (): boolean => use([SWIFTSHADER, lavapipe()]);

/** Prefers lavapipe, whose shaders have 16-bit floats. */
export const useHalfFloatDriver = (): boolean => use([lavapipe(), SWIFTSHADER]);
