/** The exports that run in a browser; bundlers find them by the condition `browser` of package.json. */
export { generateCaptions } from './evaluation/captions';
export { cacheableStage, cacheBytes, loadedStage, runStage, stageInput, stageShape } from './features/stage';
export { partKeys } from './model/part-keys';
export { alone } from './train/world';
export { createAdamW, decays, disposeAdamW, moments, updateAdamW } from './train/optimizer';
export { makeSchedule, SCHEDULERS, warmupSteps } from './train/schedule';
export { NonFiniteError } from './train/step';
export { initialState, stepsPerEpoch, train } from './train/train';
