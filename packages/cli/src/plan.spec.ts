import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ClusterPlan, LeftOut, Plan } from '@blip2/trainer';
import { beforeAll, describe, expect, it } from 'vitest';
import { cli, TINY, tinyData } from '../spec/testing';

const ON_CPU = ['--backend', 'cpu', '--set', 'per_device_train_batch_size=2'];
let data: string;
beforeAll(async () => {
  data = await tinyData();
});

const plan = (...more: string[]) => cli(['plan', '--model', TINY, '--data', data, ...ON_CPU, ...more]);

describe('plan', () => {
  it('prints one row per preset and marks the recommended one', async () => {
    const { code, out } = await plan();
    expect(code).toBe(0);
    expect(out).toContain('12 rows for training, 3 for validation, 3 for the final table; 3 pictures');
    for (const preset of ['lora', 'qformer', 'qformer-projection', 'lora\\+qformer', 'full'])
      expect(out).toMatch(
        new RegExp(`^(→|) *${preset} .*\\d MB +yes +\\d+ MB +[\\d.]+ (s|min|h) +[\\d.]+ (s|min|h)$`, 'm'),
      );
    expect(out).toMatch(/^recommended: lora; 12 rows are few .*which-layers\.md/m);
    const table = out.split('\n').filter((line) => /^[→ ] {2}\S/.test(line));
    expect(Math.max(...table.map(({ length }) => length))).toBeLessThanOrEqual(80);
  });

  it('plans one preset if one is given, and leaves out those that cannot have the settings', async () => {
    const json = async (...more: string[]) => {
      const { code, out, err } = await plan(...more, '--json');
      expect([code, err]).toEqual([0, expect.any(String)]);
      const { presets, left_out } = JSON.parse(out) as Plan & { left_out: LeftOut[] };
      return { presets: presets.map(({ preset }) => preset), left_out };
    };
    expect((await json('--preset', 'qformer')).presets).toEqual(['qformer']);
    const layer = ['--set', 'lora.target_modules=[vision_model.encoder.layers.0.mlp.fc1]'];
    const decay = ['--set', 'lr_layer_decay=0.5', ...layer];
    const { presets, left_out } = await json(...decay);
    expect(presets).toEqual(['lora', 'lora+qformer', 'full']);
    expect(left_out).toEqual([
      { preset: 'qformer', why: expect.stringContaining('lr_layer_decay') },
      { preset: 'qformer-projection', why: expect.stringContaining('lr_layer_decay') },
    ]);
    expect((await plan(...decay)).out).toContain('! qformer cannot have these settings: ');
  });

  it('plans the run, and captions, on several nodes', async () => {
    const { code, out } = await plan('--preset', 'lora', '--nodes', '3', '--captions', '1000');
    expect(code).toBe(0);
    for (const [nodes, batch] of [
      [2, 4],
      [3, 6],
    ])
      for (const link of ['1', '10', '25'])
        expect(out).toMatch(new RegExp(`^ *${nodes} +${batch} +\\d+ +${link} Gb/s .* \\d+ % `, 'm'));
    expect(out).toMatch(/^captions of 1,000 pictures on 3 nodes\n.* node-hours; failures: /m);
    const { cluster } = JSON.parse((await plan('--preset', 'lora', '--nodes', '2', '--json')).out) as Plan & {
      cluster: ClusterPlan;
    };
    expect(cluster.runs.map(({ nodes }) => nodes)).toEqual([1, 1, 1, 2, 2, 2]);
    expect((await plan('--captions', '1000')).err).toContain('--captions: expected --nodes with it');
  });

  it('writes settings that fit takes, with comments', async () => {
    const file = join(await mkdtemp(join(tmpdir(), 'blip2-plan-')), 'run.yaml');
    const { out } = await plan('--output', file);
    expect(out).toContain(`blip2 fit ${file}`);
    const text = await readFile(file, 'utf8');
    expect(text).toMatch(
      /^# yaml-language-server: \$schema=fit\.schema\.json\n# lora is recommended: .*\n# plan: 6,144 parameters/,
    );
    expect(text).toContain('# what trains\npreset: lora\n');
    const run = await cli(['fit', file, '--output', join(data, 'planned'), '--set', 'max_steps=1']);
    expect(run.err).toMatch(/^plan: 6,144 parameters, \d+ MB of memory, .* of disk/m);
    expect(run.code).toBe(0);
    const again = await plan('--output', file);
    expect(again.code).toBe(2);
    expect(again.err).toContain('expected a new file for --output');
  });

  it('plans for another machine, and has every part with --json', async () => {
    const { out } = await plan('--memory', '64MB', '--json');
    const { presets, facts } = JSON.parse(out) as Plan;
    expect(facts.machine.memory).toBe(64e6);
    expect(presets.map(({ fits }) => fits)).toEqual(['no', 'no', 'no', 'no', 'no']);
    const { memory } = presets[0];
    const { peak, ...parts } = memory;
    expect(Object.values(parts).reduce((a, b) => a + b, 0)).toBeCloseTo(peak);
    expect(presets[0].notes[0]).toMatch(/^needs .* cannot be dropped; the machine has 64 MB$/);
    expect((await plan('--memory', 'much')).err).toContain('Expected a size such as 16GB, found "much"');
  });

  it('needs only a config.json of the model', async () => {
    const file = join(await mkdtemp(join(tmpdir(), 'blip2-plan-')), 'config.json');
    await writeFile(file, await readFile(join(TINY, 'config.json')));
    const { code, out } = await cli(['plan', '--model', file, '--data', data, ...ON_CPU]);
    expect(code).toBe(0);
    expect(out).toContain('text lengths are estimated from characters');
  });

  it('names what is missing', async () => {
    const { code, err } = await cli(['plan', '--model', TINY]);
    expect(code).toBe(2);
    expect(err).toContain('plan: expected --data, or a config file');
  });
});
