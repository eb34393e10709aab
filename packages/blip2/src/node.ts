/** The exports that need Node: checkpoint folders. */
export { loadConfig, loadFolder, saveModel, writeModel } from './folder';
export type { SaveOptions } from './folder';
