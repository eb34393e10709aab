export { createApp } from './app';
export type { AppOptions } from './app';
export { startServer } from './server';
export type { RunningServer, ServerOptions } from './server';
