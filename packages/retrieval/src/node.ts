/** The exports that need Node: checkpoint folders. */
export { loadRetrievalConfig, loadRetrievalModel, saveRetrievalModel } from './folder';
