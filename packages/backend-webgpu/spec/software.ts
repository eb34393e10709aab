/** A Vulkan driver that computes on the processor, for machines without a GPU: lavapipe, or SwiftShader of Debian's chromium. */
import { existsSync } from 'node:fs';

const DRIVERS = ['/usr/share/vulkan/icd.d/lvp_icd.x86_64.json', '/usr/lib/chromium/vk_swiftshader_icd.json'];

/** Sets it for this process; false if there is none. A driver that is set already stays. */
export function useSoftwareDriver(): boolean {
  const { VK_ICD_FILENAMES, VK_DRIVER_FILES } = process.env;
  if (VK_ICD_FILENAMES || VK_DRIVER_FILES) return true;
  const driver = DRIVERS.find((file) => existsSync(file));
  if (driver) process.env.VK_ICD_FILENAMES = driver;
  return driver !== undefined;
}
