import { defineConfig } from 'vitest/config';
import projects from './vitest.workspace';

/** Worker threads would share one process, and native backends keep state per process. */
export default defineConfig({ test: { projects, pool: 'forks' } });
