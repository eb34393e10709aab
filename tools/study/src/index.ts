export { main } from './command';
