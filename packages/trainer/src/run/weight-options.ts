import { join } from 'node:path';
import { weightBits } from '@blip2/nn';
import type { FitConfig } from '../config';

/**
 * The options of `npx blip2` that name a result. One that was trained on rounded weights fits these best, and the exact ones may not fit the
 * machine.
 */
export function weightOptions(
  { model, output_dir, precision }: Pick<FitConfig, 'model' | 'output_dir' | 'precision'>,
  made: 'adapter' | 'model',
): string[] {
  const path = join(output_dir, made);
  const rounded = weightBits(precision) ? ['--precision', precision] : [];
  return [...(made === 'adapter' ? ['--model', model, '--adapter', path] : ['--model', path]), ...rounded];
}
