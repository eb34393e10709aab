import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { DOCUMENTS, readMeasurements, render } from '@blip2/bench';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../../', import.meta.url));

describe('docs/measurements.json', () => {
  it.each(DOCUMENTS)('%s shows its figures (else: npm run measure -- --render)', async (document) => {
    const text = await readFile(root + document, 'utf8');
    expect(text).toContain('<!-- measured: ');
    expect(render(text, await readMeasurements())).toBe(text);
  });
});
