/** Work that a stranger's file could make endless, such as looking for a regular expression of his. */
import { createContext, Script } from 'node:vm';

const sandbox = createContext(Object.create(null) as { work?: () => unknown });
const call = new Script('work()');

/** What `work` returns. @throws as it does; Error when it was stopped after so many milliseconds */
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
