/** What needs Node: adapter folders. */
export { loadAdapter, saveAdapter } from './adapter-folder';
