/** Runs the checks of a case. */
import { adapterBase, textIds } from '@blip2/blip2';
import type { Blip2 } from '@blip2/blip2';
import { loadConfig, loadFolder } from '@blip2/blip2/node';
import { loadProcessor } from '@blip2/data-captions';
import type { Processor } from '@blip2/data-captions';
import { dispose } from '@blip2/nn';
import { applyAdapter } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import type { Case, Check } from './case-file';
import { exact } from './compare';
import type { Finding } from './compare';
import { runCheck } from './rungs';
import type { Setup } from './inputs';

export interface Row extends Finding {
  case: string;
  rung: Check['rung'];
  name: string;
}

/** Changes of loaded data, for mutations. */
export interface Changes {
  model?: (model: Blip2) => Blip2;
  processor?: (processor: Processor) => Processor;
  case?: (of: Case) => Case;
}

/** Runs the checks that `selected` accepts on the active backend; an error in one is a red row. */
export async function runCase(
  original: Case,
  selected: (check: Check) => boolean = () => true,
  changes: Changes = {},
): Promise<Row[]> {
  const of = changes.case?.(original) ?? original;
  const loaded: Blip2[] = [];
  const setup = setupOf(of, changes, loaded);
  const rows: Row[] = [];
  for (const check of of.checks.filter(selected)) {
    const finding = await runCheck(check, setup).catch((error: Error) => exact(false, error.message));
    rows.push({ case: of.name, rung: check.rung, name: check.name, ...finding });
  }
  for (const { params } of loaded) dispose(params);
  return rows;
}

function setupOf(of: Case, changes: Changes, loaded: Blip2[]): Setup {
  const once = <T>(make: () => Promise<T>) => {
    let made: Promise<T> | undefined;
    return () => (made ??= make());
  };
  const base = once(async () => {
    const model = await loadFolder(of.model);
    loaded.push(model);
    return changes.model?.(model) ?? model;
  });
  const model = once(async () => {
    const plain = await base();
    if (!of.adapter) return plain;
    return {
      ...plain,
      params: applyAdapter(plain.params, await loadAdapter(of.adapter), adapterBase(plain.config)),
    };
  });
  const processor = once(async () => {
    // make_cases.py opens the pictures by PIL alone
    const decoding = { image_orientation: 'ignore' } as const;
    const own = await loadProcessor(of.model, textIds(await loadConfig(of.model)), decoding);
    return changes.processor?.(own) ?? own;
  });
  return { of, base, model, processor };
}
