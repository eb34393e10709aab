import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestProjectConfiguration } from 'vitest/config';

const root = fileURLToPath(new URL('.', import.meta.url));
/** Imports between packages resolve to sources, so tests need no build. */
const conditions = ['@blip2/source', 'node', 'import', 'default'];

/** Every suite's temporary folders and caches lie here, so that none stays behind, whatever a test leaves. */
const scratch = mkdtempSync(join(tmpdir(), 'blip2-vitest-'));
process.once('exit', () => rmSync(scratch, { recursive: true, force: true, maxRetries: 3 }));

/** Every folder of packages/, tools/ and examples/ that has sources is one project, named after its folder. */
const projects: TestProjectConfiguration[] = ['packages', 'tools', 'examples'].flatMap((group) =>
  readdirSync(root + group)
    .filter((name) => existsSync(`${root}${group}/${name}/src`))
    .map((name) => ({
      resolve: { conditions },
      ssr: { resolve: { conditions } },
      test: {
        name,
        root: `${root}${group}/${name}`,
        include: ['{src,spec}/**/*.spec.ts'],
        // Long enough for a busy machine: only what never ends is to fail by its time.
        testTimeout: 180_000,
        hookTimeout: 180_000,
        expect: { poll: { timeout: 30_000 } },
        env: { TMPDIR: scratch, XDG_CACHE_HOME: join(scratch, 'cache') },
      },
    })),
);

export default projects;
