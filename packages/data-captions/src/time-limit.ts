/** A time limit for work that an untrusted file could make endless, such as matching its regular expressions. */
import { createContext, Script } from 'node:vm';

const sandbox = createContext(Object.create(null) as { work?: () => unknown });
const call = new Script('work()');

/** Returns the result of `work`. @throws what `work` throws, or Error after so many milliseconds */
export function withinTime<T>(milliseconds: number, work: () => T): T {
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
