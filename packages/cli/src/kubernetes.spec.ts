/** deploy/kubernetes: its manifests against the published schemas, and their commands run as the containers would run them. */
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Ajv } from 'ajv';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { bundle } from '../../../tsup.config';
import { mpiAddon, MPI_ENV } from '../../distributed/spec/launch';
import { writeShard } from '../spec/shards';
import { IMAGE, tinyData, TINY } from '../spec/testing';

const FOLDER = fileURLToPath(new URL('../../../deploy/kubernetes/', import.meta.url));
const schema = JSON.parse(
  readFileSync(new URL('../fixtures/kubernetes.schema.json', import.meta.url), 'utf8'),
) as { definitions: Record<string, object> };
const ajv = new Ajv({ strict: false, allErrors: true }).addSchema(schema, 'kubernetes');

interface Container {
  command: string[];
  args?: string[];
  env?: { name: string; value?: string; valueFrom?: { resourceFieldRef: { resource: string } } }[];
  resources: { limits: { cpu: string } };
  volumeMounts: { name: string; mountPath: string; readOnly?: boolean }[];
}
interface PodTemplate {
  spec: {
    containers: Container[];
    volumes: { name: string; persistentVolumeClaim?: { claimName: string } }[];
  };
}
interface Document {
  kind: string;
  metadata: { name: string };
  data?: Record<string, string>;
  spec: {
    completions?: number;
    template?: PodTemplate;
    mpiReplicaSpecs?: Record<'Launcher' | 'Worker', { replicas: number; template: PodTemplate }>;
  };
}

const documentsOf = (file: string) =>
  parseAllDocuments(readFileSync(join(FOLDER, file), 'utf8')).map((one) => one.toJS() as Document);
const files = readdirSync(FOLDER).filter((name) => name.endsWith('.yaml'));

function problems(document: Document): string[] {
  const check = ajv.getSchema(`kubernetes#/definitions/${document.kind}`)!;
  return check(document)
    ? []
    : check.errors!.map(({ instancePath, message }) => `${instancePath} ${message}`);
}

describe('manifests', () => {
  it.each(files)('%s has the published form', (file) => {
    const documents = documentsOf(file);
    expect(documents.length).toBeGreaterThan(0);
    for (const document of documents) expect(problems(document)).toEqual([]);
  });

  it.each([
    ['a field that there is not', ['spec', 'backofLimitPerIndex'], 3],
    ['a number where text is expected', ['spec', 'template', 'spec', 'containers', 0, 'env', 0, 'value'], 8],
    ['a missing field', ['spec', 'template', 'spec', 'containers', 0, 'volumeMounts', 0], { name: 'runs' }],
  ] as const)('would not pass with %s', (_, path, value) => {
    const [job] = documentsOf('caption.yaml');
    let place = job as unknown as Record<string | number, unknown>;
    for (const name of path.slice(0, -1)) place = place[name] as typeof place;
    place[path.at(-1)!] = value;
    expect(problems(job)).toHaveLength(1);
  });

  it('name volumes that storage.yaml claims, and one number of parts', () => {
    const claims = documentsOf('storage.yaml').map(({ metadata }) => metadata.name);
    const pods = files
      .flatMap(documentsOf)
      .flatMap(({ spec }) => [
        ...(spec?.template ? [spec.template] : []),
        ...Object.values(spec?.mpiReplicaSpecs ?? {}).map(({ template }) => template),
      ]);
    expect(pods.length).toBe(4);
    for (const { spec } of pods) {
      const volumes = spec.volumes.map(({ name }) => name);
      for (const { volumeMounts } of spec.containers)
        expect(volumeMounts.map(({ name }) => name).sort()).toEqual([...volumes].sort());
      for (const { persistentVolumeClaim: claim } of spec.volumes)
        if (claim) expect(claims).toContain(claim.claimName);
    }
    const [job] = documentsOf('caption.yaml');
    const parts = job.spec.template!.spec.containers[0].env!.find(({ name }) => name === 'BLIP2_PARTS');
    expect(Number(parts!.value)).toBe(job.spec.completions);
  });
});

/** A container in a folder: its volumes below the folder, and the programs of the image in one that PATH begins with. */
describe('containers', () => {
  let root: string;
  const at = (path: string) => path.replaceAll('/blip2/', `${root}/`);

  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'blip2-kubernetes-'));
    const bin = await bundle(new URL('bin.ts', import.meta.url));
    for (const name of ['bin', 'model', 'data/shards', 'cache', 'runs', 'config'])
      mkdirSync(join(root, name), { recursive: true });
    writeFileSync(join(root, 'bin', 'blip2'), `#!/bin/sh\nexec ${process.execPath} ${bin} "$@"\n`);
    cpSync(join(FOLDER, 'fit.sh'), join(root, 'bin', 'blip2-fit'));
    for (const name of ['blip2', 'blip2-fit']) chmodSync(join(root, 'bin', name), 0o755);
    cpSync(TINY, join(root, 'model', 'blip2-opt-2.7b'), { recursive: true });
    const image = readFileSync(IMAGE);
    for (let i = 0; i < 9; i++) await writeShard(join(root, 'data', 'shards', `${i}.tar`), [[`${i}`, image]]);
  }, 60_000);
  afterAll(() => rm(root, { recursive: true, force: true }));

  /** Runs a container's command with the variables that Kubernetes sets. */
  function start(
    { command, args = [], env = [], resources }: Container,
    more: NodeJS.ProcessEnv,
    extra: string[] = [],
  ) {
    const own = env.map(({ name, value }) => [name, value ?? resources.limits.cpu] as const);
    const [program, ...rest] = [...command, ...args].map(at);
    const { status, stderr } = spawnSync(join(root, 'bin', program), [...rest, ...extra], {
      encoding: 'utf8',
      cwd: root,
      env: { HOME: root, PATH: `${root}/bin:${process.env.PATH}`, ...Object.fromEntries(own), ...more },
    });
    return { status, stderr };
  }

  it(
    'of caption.yaml caption their shards, and that of caption-join.yaml finds all',
    { timeout: 240_000 },
    () => {
      const [job] = documentsOf('caption.yaml');
      const [container] = job.spec.template!.spec.containers;
      const quick = ['--backend', 'wasm', '--max-new-tokens', '3'];
      for (const index of [0, 1, 1]) {
        const { status, stderr } = start(container, { JOB_COMPLETION_INDEX: String(index) }, quick);
        expect(status, stderr).toBe(0);
      }
      const [join_] = documentsOf('caption-join.yaml')[0].spec.template!.spec.containers;
      expect(start(join_, {}).stderr).toMatch(/6 of 9 shards are not finished/);
      for (let index = 2; index < job.spec.completions!; index++)
        start(container, { JOB_COMPLETION_INDEX: String(index) }, quick);
      const joined = start(join_, {});
      expect(joined.status, joined.stderr).toBe(0);
      const manifest = JSON.parse(
        readFileSync(join(root, 'runs', 'captions', 'manifest.json'), 'utf8'),
      ) as object;
      expect(manifest).toMatchObject({ rows: 9, failed: 0 });
    },
  );
});

const addon = mpiAddon();

describe.skipIf(!addon)('the launcher of fit.yaml', () => {
  let root: string;
  beforeAll(async () => void (root = await tinyData()));
  afterAll(() => rm(root, { recursive: true, force: true }));

  it(
    'trains on all slots of the host file, stops with a checkpoint, and goes on',
    { timeout: 120_000 },
    async () => {
      const bin = await bundle(new URL('bin.ts', import.meta.url));
      const [map, job] = documentsOf('fit.yaml');
      const workers = job.spec.mpiReplicaSpecs!.Worker.replicas;
      mkdirSync(join(root, 'bin'));
      writeFileSync(join(root, 'bin', 'blip2'), `#!/bin/sh\nexec ${process.execPath} ${bin} "$@"\n`);
      chmodSync(join(root, 'bin', 'blip2'), 0o755);
      const given = parse(map.data!['config.yaml']) as Record<string, unknown>;
      const config = {
        ...given,
        ...{
          model: TINY,
          data: root,
          cache_dir: join(root, 'cache'),
          backend: 'wasm',
          max_steps: 2,
          save_steps: 1,
        },
        final_evaluation: 'none',
      };
      writeFileSync(join(root, 'config.yaml'), JSON.stringify(config));
      writeFileSync(join(root, 'hostfile'), `localhost slots=${workers}\n`);
      const run = (...more: string[]) =>
        spawnSync(join(FOLDER, 'fit.sh'), [join(root, 'config.yaml'), join(root, 'run'), ...more], {
          encoding: 'utf8',
          env: {
            ...process.env,
            ...MPI_ENV,
            ...{ BLIP2_MPI_ADDON: addon, BLIP2_NUM_THREADS: '1', NO_COLOR: '1' },
            PATH: `${root}/bin:${process.env.PATH}`,
            OMPI_MCA_orte_default_hostfile: join(root, 'hostfile'),
          },
        });
      const first = run();
      expect(first.status, first.stderr).toBe(0);
      expect(first.stderr).toContain(`${workers} processes, Open MPI`);
      const second = run('--set', 'max_steps=4');
      expect(second.status, second.stderr).toBe(0);
      expect(second.stderr).toContain('resumed at step 2');
    },
  );
});
