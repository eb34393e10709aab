/** The conformance suite of @blip2/nn, at every instruction-set level. */
import { conformanceChecks } from '@blip2/nn/conformance';
import { useBackend } from '@blip2/nn/node';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { addon, levels } from '../spec/fixtures';

describe.each(levels)('conformance, %s', (level) => {
  beforeAll(async () => {
    await useBackend('native');
    addon.setInstructionSet(level);
  });
  afterAll(() => addon.setInstructionSet(levels.at(-1)!));
  for (const { name, run } of conformanceChecks()) it(name, run);
});
