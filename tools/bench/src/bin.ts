#!/usr/bin/env node
// node dist/bin.js full --model DIR --python PYTHON
import { main } from './command';

main(process.argv.slice(2)).catch((error: Error) => {
  const usage = error.name === 'UsageError';
  console.error(usage ? error.message : (error.stack ?? error.message));
  process.exitCode = usage ? 2 : 1;
});
