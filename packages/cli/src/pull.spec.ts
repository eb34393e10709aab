/** `pull` and `import-lavis` as commands; their functions are tested in @blip2/weights. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cli } from '../spec/testing';

const BASE = fileURLToPath(new URL('../../peft-lora/fixtures/base', import.meta.url));
const LAVIS = fileURLToPath(new URL('../../weights/fixtures/lavis', import.meta.url));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pull-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('pull', () => {
  it('fails with code 1 and a reason when offline, and for an invalid name', async () => {
    const offline = await cli(['pull', 'acme/tiny', '--json'], {
      env: { HF_HUB_OFFLINE: '1', HF_HOME: folder },
    });
    expect(offline.code).toBe(1);
    expect(JSON.parse(offline.out)).toMatchObject({ error: { name: 'WeightsError' } });
    expect(offline.err).toContain('HF_HUB_OFFLINE is set');
    const invalid = await cli(['pull', 'tiny'], { env: { HF_HOME: folder } });
    expect(invalid.code).toBe(1);
    expect(invalid.err).toContain('expected a name on the hub');
  });
});

describe('import-lavis', () => {
  it('writes a model folder, and rejects a pickle that contains code', async () => {
    const output = join(folder, 'model');
    const done = await cli([
      'import-lavis',
      join(LAVIS, 'trained.pth'),
      '--base',
      BASE,
      '--output',
      output,
      '--json',
    ]);
    expect(done.err).toBe('');
    const { imported, kept } = JSON.parse(done.out) as { imported: string[]; kept: number };
    expect(imported).toContain('query_tokens');
    expect(kept).toBeGreaterThan(0);
    expect(await readdir(output)).toContain('model.safetensors');
    const unsafe = await cli([
      'import-lavis',
      join(LAVIS, 'unsafe.pth'),
      '--base',
      BASE,
      '--output',
      join(folder, 'other'),
    ]);
    expect(unsafe.code).toBe(1);
    expect(unsafe.err).toContain('it is not run');
  });
});
