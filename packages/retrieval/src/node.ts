/** The exports that need Node: checkpoint folders. */
export { isRetrievalFolder, loadRetrievalConfig, loadRetrievalModel, saveRetrievalModel } from './folder';
