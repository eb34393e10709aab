export { CaseError, listCases, readCase } from './case-file';
export type { Case, Check, Expected } from './case-file';
export { runCase } from './run-case';
export type { Row } from './run-case';
export { formatRows } from './table';
export { mutations } from './mutations';
export { sensitivity } from './sensitivity';
