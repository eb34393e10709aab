/** A time limit for work that an untrusted file could make endless, such as matching its regular expressions. */

/** Node's way to stop such work. Browsers have no such module, so it is not imported: there a page ends its worker. */
const vm = globalThis.process?.getBuiltinModule?.('node:vm');
const sandbox = vm?.createContext(Object.create(null) as { work?: () => unknown });
const call = vm && new vm.Script('work()');

/** Returns the result of `work`. @throws what `work` throws, or Error after so many milliseconds */
export function withinTime<T>(milliseconds: number, work: () => T): T {
  if (!sandbox || !call) return work();
  sandbox.work = work;
  try {
    return call.runInContext(sandbox, { timeout: milliseconds }) as T;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
    throw new Error(`stopped after ${milliseconds} ms; a regular expression in them may never end`);
  } finally {
    sandbox.work = undefined;
  }
}
