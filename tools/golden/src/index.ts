export { expectClose, expectKeyedDropout, get, namesUnder, readGolden, toTensor, weightTree } from './golden';
export type { Golden, GoldenTensor } from './golden';
export { traceKeys } from './trace-keys';
export type { KeyTrace } from './trace-keys';
