import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { TestProjectConfiguration } from 'vitest/config';

const root = fileURLToPath(new URL('.', import.meta.url));
/** Imports between packages resolve to sources, so tests need no build. */
const conditions = ['@blip2/source', 'node', 'import', 'default'];

/** Every folder of packages/ and tools/ that has sources is one project, named after its folder. */
const projects: TestProjectConfiguration[] = ['packages', 'tools'].flatMap((group) =>
  readdirSync(root + group)
    .filter((name) => existsSync(`${root}${group}/${name}/src`))
    .map((name) => ({
      resolve: { conditions },
      ssr: { resolve: { conditions } },
      test: {
        name,
        root: `${root}${group}/${name}`,
        include: ['{src,spec}/**/*.spec.ts'],
        testTimeout: 60_000,
        hookTimeout: 60_000,
      },
    })),
);

export default projects;
