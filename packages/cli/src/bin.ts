#!/usr/bin/env node
import { run } from './run';

// Whoever reads our output may stop reading (`| head`); that is no failure of the command.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});
process.exitCode = await run(process.argv.slice(2));
