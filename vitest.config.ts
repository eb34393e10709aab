import { defineConfig } from 'vitest/config';
import projects from './vitest.workspace';

/** The project whose suite nx runs: its results are an output of the target, which tools/repository/report.mjs adds up. */
const suite = process.env.NX_TASK_TARGET_PROJECT;

/** Worker threads would share one process, and native backends keep state per process. */
export default defineConfig({
  test: {
    projects,
    pool: 'forks',
    ...(suite && {
      reporters: ['default', 'json'],
      outputFile: { json: `build/tests/${suite}.json` },
    }),
  },
});
