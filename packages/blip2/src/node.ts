/** The exports that need Node: checkpoint folders. */
export { loadConfig, loadFolder, saveModel, writeModel } from './folder';
export type { FolderOptions, SaveOptions } from './folder';
export type { Int8FileOptions } from './int8-file';
