export { pretrain } from './pretrain';
export type { PretrainOptions, Scores } from './pretrain';
export { loadBaseData, itemsOf } from './base-data';
export type { BaseData, BaseItem } from './base-data';
export { trainBpe } from './bpe';
export type { Bpe } from './bpe';
export { evaluate, score } from './evaluate';
export type { Score } from './evaluate';
export type { Budget } from './schedule';
