/**
 * A suite is replayed from nx's cache unless one of its inputs changed. So everything that it reads outside its own project must be
 * an input of its `test` target: sources of packages that it imports are, files that are named by a path must be listed in `foreign`
 * (`nx.namedInputs` of its package.json). The suites of tools/repository and tools/docs read the whole repository and are never cached.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createProjectGraphAsync } from '@nx/devkit';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const projects = ['packages', 'tools', 'examples'].flatMap((group) =>
  readdirSync(root + group)
    .filter((name) => hasSuite(`${root}${group}/${name}`))
    .map((name) => ({ name, folder: `${group}/${name}` })),
);

/** Whether the folder has a suite whose results are cached. */
function hasSuite(folder: string): boolean {
  const { scripts, nx } = JSON.parse(readFileSync(`${folder}/package.json`, 'utf8')) as Manifest;
  return 'test' in scripts && nx?.targets?.test?.cache !== false;
}

interface Manifest {
  scripts: object;
  nx?: { targets?: { test?: { cache?: boolean } } };
}

const isSpec = (source: string) => source.endsWith('.spec.ts') || source.includes('/spec/');

/** Paths from the root, with `/`. */
const fromRoot = (path: string) => relative(root, path).split(sep).join('/');

function filesBelow(path: string): string[] {
  if (statSync(path).isFile()) return [fromRoot(path)];
  const entries = readdirSync(path, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => fromRoot(join(entry.parentPath, entry.name)));
}

/** Every path outside the project that a string of its sources names, with the source. */
function foreignPaths(folder: string): { source: string; path: string }[] {
  const sources = ['src', 'spec'].flatMap((part) =>
    existsSync(join(root, folder, part)) ? filesBelow(join(root, folder, part)) : [],
  );
  return sources
    .filter((source) => source.endsWith('.ts'))
    .flatMap((source) =>
      [...readFileSync(join(root, source), 'utf8').matchAll(/['"`](\.\.\/[^'"`$\n]*)/g)].map(([, text]) => ({
        source,
        path: resolve(root, dirname(source), text),
      })),
    )
    .map(({ source, path }) => ({ source, path: existsSync(path) ? path : `${path}.ts` }))
    .filter(
      ({ path }) => existsSync(path) && !fromRoot(path).startsWith(`${folder}/`) && fromRoot(path) !== folder,
    );
}

interface Inputs {
  files: string[];
  depOutputs: string[];
}

/** What `nx show target inputs` prints, for any number of projects in one process. */
async function inputsInspector(): Promise<(project: string) => Inputs> {
  const { HashPlanInspector } = createRequire(import.meta.url)(
    `${root}node_modules/nx/dist/src/hasher/hash-plan-inspector.js`,
  ) as { HashPlanInspector: new (graph: unknown, root: string) => Inspector };
  const inspector = new HashPlanInspector(await createProjectGraphAsync(), root);
  await inspector.init();
  return (project) => inspector.inspectTaskInputs({ project, target: 'test' })[`${project}:test`];
}

interface Inspector {
  init(): Promise<void>;
  inspectTaskInputs(task: { project: string; target: string }): Record<string, Inputs>;
}

const inputsOf = await inputsInspector();

describe.each(projects)('the suite of $name', ({ name, folder }) => {
  it('has every file that its sources name as an input, and the addon if it runs nn', () => {
    const { files, depOutputs } = inputsOf(name);
    const inputs = new Set(files);
    expect(inputs.has(`${folder}/package.json`)).toBe(true);
    expect(files.filter((file) => file.endsWith('README.md'))).toEqual([]);
    for (const { source, path } of foreignPaths(folder)) {
      if (root.startsWith(path + sep) || path + sep === root || `${root}${folder}`.startsWith(path + sep)) {
        // A program may look for a file from the root; a suite names what it reads.
        expect(isSpec(source), `${source}: expected a file or folder of one project, found ${path}`).toBe(
          false,
        );
        continue;
      }
      const missing = filesBelow(path).filter((file) => !inputs.has(file) && !file.endsWith('README.md'));
      expect(
        missing,
        `${source} reads them: add them to nx.namedInputs.foreign of ${folder}/package.json`,
      ).toEqual([]);
    }
    const runsNn = inputs.has('packages/nn/src/index.ts');
    expect(inputs.has('packages/backend-native/src/addon.ts')).toBe(runsNn);
    expect(depOutputs.some((file) => file.endsWith('.node'))).toBe(runsNn);
  });
});
