/** A program as a bundler puts it into a page, run without Node's globals. */
import type { Context } from 'node:vm';
import { createContext, runInContext } from 'node:vm';
import { build } from 'esbuild';
import { expect } from 'vitest';

/** The browser's globals that the packages use, besides JavaScript's own. */
const WEB = { console, performance, setTimeout, structuredClone, MessageChannel, TextDecoder, TextEncoder };

/** The code of a program whose exports are `program`. Fails if it needs a module of Node. */
export async function bundled(file: string): Promise<string> {
  const { outputFiles, warnings, metafile } = await build({
    entryPoints: [file],
    conditions: ['@blip2/source'],
    platform: 'browser',
    format: 'iife',
    globalName: 'program',
    bundle: true,
    write: false,
    metafile: true,
    logLevel: 'silent',
  });
  expect(warnings).toEqual([]);
  expect(Object.values(metafile.outputs).flatMap(({ imports }) => imports)).toEqual([]);
  return outputFiles[0]!.text;
}

/** A context in which the program has run. */
export function inBrowser(code: string, more: object = {}): Context {
  const context = createContext({ ...WEB, ...more });
  runInContext('self = globalThis; WorkerGlobalScope = Object', context); // tfjs detects a web worker by these
  expect(runInContext('typeof process + typeof require', context)).toBe('undefinedundefined');
  runInContext(code, context);
  return context;
}
