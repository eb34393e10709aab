#!/usr/bin/env node
import { run } from './run';

let failed = false;
// A closed pipe (`| head`) is not a failure of the command. A result that cannot be written is one.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit();
  if (!failed) process.stderr.write(`error: stdout: the result cannot be written: ${error.message}\n`);
  failed = true;
  process.exitCode = 1;
});
process.stderr.on('error', () => undefined); // there is nobody to tell; `fit` stops and saves a checkpoint
const code = await run(process.argv.slice(2));
process.exitCode = failed ? 1 : code;
