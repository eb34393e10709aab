import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { useBackend } from '@blip2/nn/node';
import { atLeast, listCases, readCase } from './case-file';
import { runCase } from './run-case';
import { formatRows } from './table';

const folders = await listCases(fileURLToPath(new URL('../cases', import.meta.url)));
const cases = await Promise.all(folders.map(readCase));

describe.each(['auto', 'wasm'] as const)('golden cases of transformers and PEFT on %s', (backend) => {
  beforeAll(() => useBackend(backend));

  it.each(cases.map((of) => [of.name, of] as const))(
    '%s: every check is green',
    async (_, of) => {
      const rows = await runCase(of);
      expect(rows).toHaveLength(of.checks.length);
      expect(
        formatRows(rows.filter(({ ok }) => !ok))
          .split('\n')
          .slice(1),
      ).toEqual([]);
    },
    300_000,
  );
});

describe('a check', () => {
  beforeAll(() => useBackend('auto'));

  it('is red if numbers differ by more than its tolerance, and if its inputs are missing', async () => {
    const of = cases.find(({ name }) => name === 'opt-pre-norm')!;
    const loss = of.checks.find(({ rung }) => rung === 'loss')!;
    const off = {
      ...of,
      values: (name: string) => {
        const { values, shape } = of.values(name);
        return { values: values.map((x) => x * (1 + 1e-4)), shape };
      },
    };
    expect(await runCase(off, (check) => check === loss)).toMatchObject([{ ok: false }]);
    const raised = await runCase(atLeast(off, 1e-3), ({ rung }) => rung === 'loss');
    expect(raised[0]).toMatchObject({ ok: true, tolerance: 1e-3 });
    const renamed = { ...of, inputs: {} };
    expect(await runCase(renamed, (check) => check === loss)).toMatchObject([
      { ok: false, detail: expect.stringMatching(/inputs: expected "right", found none/) },
    ]);
  });
});
