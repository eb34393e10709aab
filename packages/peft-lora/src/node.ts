/** The part that needs Node: adapter folders. */
export { loadAdapter, saveAdapter } from './adapter-folder';
