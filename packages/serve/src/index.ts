export { createApp } from './app';
export type { AppOptions } from './app';
export { isLoopback } from './guard';
export { startServer } from './server';
export type { RunningServer, ServerOptions } from './server';
