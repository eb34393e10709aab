#!/usr/bin/env node
// node dist/bin.js run --processes 2
import { fileURLToPath } from 'node:url';
import { main } from './command';

main(process.argv.slice(2), fileURLToPath(import.meta.url)).catch((error: Error) => {
  console.error(error.message);
  process.exitCode = 1;
});
