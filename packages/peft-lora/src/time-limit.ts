/** A limit for work with regular expressions of an adapter, which a stranger may have written. */
import { AdapterError } from './errors';

const MOST_MS = 4000;

/** Node's way to stop a search; undefined in browsers, which have no such module, so it is not imported. */
const vm = globalThis.process?.getBuiltinModule?.('node:vm');
const sandbox = vm?.createContext(Object.create(null) as { work?: () => unknown });
const call = vm && new vm.Script('work()');

/** The result of `work`. @throws AdapterError if it takes longer than 4 seconds, and what `work` throws */
export function withinTime<T>(work: () => T, what: string): T {
  if (!sandbox || !call) return work();
  sandbox.work = work;
  try {
    return call.runInContext(sandbox, { timeout: MOST_MS }) as T;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
    throw new AdapterError(
      `${what}: expected patterns that take at most ${MOST_MS / 1000} s on the model's names, stopped; simplify them`,
      undefined,
      { cause: error },
    );
  } finally {
    sandbox.work = undefined;
  }
}
