import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';
import projects from './vitest.workspace';

/** The project whose suite nx runs: its results are an output of the target, which tools/repository/report.mjs adds up. */
const suite = process.env.NX_TASK_TARGET_PROJECT;

/** Worker threads would share one process, and native backends keep state per process. */
export default defineConfig({
  test: {
    projects,
    pool: 'forks',
    // nx runs two suites at a time; at its end one of them has the cores alone.
    maxWorkers: Math.max(2, Math.floor(availableParallelism() / 2)),
    ...(suite && {
      reporters: ['default', 'json'],
      outputFile: { json: `build/tests/${suite}.json` },
    }),
  },
});
