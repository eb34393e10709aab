export { cachedInput, mib, openFeatureCache } from './cache';
export type { CacheOptions, FeatureCache } from './cache';
export { featureKey } from './key';
export type { FeatureKey } from './key';
export { cacheableStage, cacheBytes, stageInput, stageShape } from './stage';
export type { CachedStage } from './stage';
export { defaultCacheDir, fileBytes, freeBytes, openStore } from './store';
export type { FeatureStore } from './store';
