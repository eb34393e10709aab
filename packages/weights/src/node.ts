/** The exports that need Node: files, folders, the hub, and foreign formats. */
export { openWeights } from './files';
export { openRegular, readJsonFile, readRegular } from './regular-file';
export { writeSafetensors, writeSharded } from './writer';
export { copyFiles } from './companions';
export { copySynced, isDraft, makeFolders, syncFolder, withStaged, writeFileAtomic } from './staging';
export { safetensorsHeader } from './encode';
export { MODEL_FOLDER, newFolder, replaceFolder } from './folder';
export type { FolderKind } from './folder';
export { lockFile, LockedError } from './lock';
export type { LockOptions } from './lock';
export { openTorchCheckpoint } from './torch-checkpoint';
export type { TorchCheckpoint, TorchTensor } from './torch-checkpoint';
export { importLavis, lavisName } from './lavis';
export type { LavisImport } from './lavis';
export { hubCacheDir, isModelId, resolveModel } from './hub-cache';
export { pullModel } from './hub';
export type { Pulled, PullOptions } from './hub';
