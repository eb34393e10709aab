/** The exports that need Node: checkpoint folders. */
export { loadConfig, loadFolder, saveModel } from './folder';
export type { SaveOptions } from './folder';
