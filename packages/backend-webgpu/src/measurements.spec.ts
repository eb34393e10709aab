import { mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, it, vi } from 'vitest';
import { measurements } from './measurements';

afterEach(() => vi.unstubAllEnvs());

it('measurements are kept in the cache folder, a file for each adapter', () => {
  const cache = mkdtempSync(join(tmpdir(), 'blip2-tiles-'));
  vi.stubEnv('XDG_CACHE_HOME', cache);
  expect(measurements.read('abc')).toBeUndefined();
  measurements.write('abc', '{"a":1}');
  measurements.write('abc', '{"a":2}');
  expect(JSON.parse(measurements.read('abc')!)).toEqual({ a: 2 });
  expect(measurements.read('abd')).toBeUndefined();
  expect(readdirSync(join(cache, 'blip2', 'webgpu'))).toEqual(['tiles-abc.json']);
});

it('measurements that cannot be kept are no error', () => {
  const file = join(mkdtempSync(join(tmpdir(), 'blip2-tiles-')), 'file');
  writeFileSync(file, '');
  vi.stubEnv('XDG_CACHE_HOME', file);
  measurements.write('abc', '{}');
  expect(measurements.read('abc')).toBeUndefined();
});
