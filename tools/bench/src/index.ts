export { main } from './command';
export { checkSameWork } from './check';
export { demoTables } from './demo';
export { fullTables } from './full';
export { measurePeak } from './peak';
export { runCaptions } from './caption';
export { runSteps } from './step';
export { readWork, syntheticBatch, writeWork } from './work';
export type { WorkBatch } from './work';
