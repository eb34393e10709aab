import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defineWorkspace } from 'vitest/config';

const root = fileURLToPath(new URL('.', import.meta.url));

/** Every folder of packages/ and tools/ that has sources is one project, named after its folder; imports resolve to sources, so tests need no build. */
const projects = ['packages', 'tools'].flatMap((group) =>
  readdirSync(root + group)
    .filter((name) => existsSync(`${root}${group}/${name}/src`))
    .map((name) => ({
      resolve: { conditions: ['@blip2/source', 'node', 'import', 'default'] },
      ssr: { resolve: { conditions: ['@blip2/source', 'node', 'import', 'default'] } },
      test: {
        name,
        root: `${root}${group}/${name}`,
        include: ['src/**/*.spec.ts', 'spec/**/*.spec.ts'],
        testTimeout: 60_000,
        hookTimeout: 60_000,
      },
    })),
);

export default defineWorkspace(projects);
