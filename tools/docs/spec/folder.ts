/** A folder in which the commands of documents run as in a checkout, but write nothing to it. */
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import ts from 'typescript';
import type { Block } from './blocks';
import { ROOT } from './blocks';

/** What a reader makes, as opposed to what is in a checkout. */
const MADE = ['data', 'runs', 'build', '.git', '.nx'];
const LAUNCHER = join(ROOT, 'packages/cli/bin/blip2.mjs');

/** Makes every `blip2 fit` short. The full run on drawn pictures is packages/cli/src/own-pictures.spec.ts. */
const SHORT = '--max-steps 3 --set eval_steps=3 --set sample_steps=3 --set eval_limit=6';

/**
 * In front of the PATH: `npx blip2` is the launcher of this checkout, and `fit` short. Nothing else starts by npx, so that no
 * document can fetch a package.
 */
const NPX = `#!/bin/sh
[ "$1" = blip2 ] || { echo "npx $1: only blip2 runs here" >&2; exit 1; }
shift
[ "$1" = fit ] && [ "$2" != --schema ] && set -- "$@" ${SHORT}
exec "${process.execPath}" "${LAUNCHER}" "$@"
`;

/** Builds the command if a source has changed. */
export async function buildCommand(): Promise<void> {
  const { status, output } = await run(ROOT, process.execPath, [LAUNCHER, '--version']);
  if (status !== 0) throw new Error(output);
}

/** A new folder with links to everything in the checkout, and copies of what another such folder has made. */
export function makeFolder(from?: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'blip2-docs-'));
  for (const name of readdirSync(ROOT))
    if (!MADE.includes(name)) symlinkSync(join(ROOT, name), join(folder, name));
  mkdirSync(join(folder, '.bin'));
  mkdirSync(join(folder, '.blocks'));
  writeFileSync(join(folder, '.bin/npx'), NPX, { mode: 0o755 });
  for (const made of from ? ['data', 'runs'] : [])
    cpSync(join(from!, made), join(folder, made), { recursive: true });
  return folder;
}

/** An interpreter that has what the documents import, or undefined. BLIP2_PYTHON names another than python3. */
export function findPython(): string | undefined {
  const python = process.env.BLIP2_PYTHON ?? 'python3';
  const { status } = spawnSync(python, ['-c', 'import torch, transformers, peft, PIL'], { stdio: 'ignore' });
  return status === 0 ? python : undefined;
}

/**
 * Runs a block of sh, ts or python in the folder, and returns its output.
 * @throws Error with the output if it fails
 */
export async function runBlock(
  folder: string,
  { at, language, code }: Block,
  python: string,
): Promise<string> {
  const { status, output } = await run(folder, ...programOf(folder, at, language, code, python));
  if (status !== 0) throw new Error(`${at}: failed with exit code ${status}\n${code}\n${output}`);
  return output;
}

function programOf(
  folder: string,
  at: string,
  language: string,
  code: string,
  python: string,
): [string, string[]] {
  if (language === 'sh') return ['bash', ['-euo', 'pipefail', '-c', code]];
  if (language === 'python') return [python, ['-W', 'error::DeprecationWarning:__main__', '-c', code]];
  const file = join(folder, '.blocks', `${at.replace(/\W+/g, '-')}.mjs`);
  const { outputText } = ts.transpileModule(code, {
    compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
  });
  writeFileSync(file, outputText);
  return [process.execPath, [file]];
}

/** Runs a program without blocking, and returns its exit code and all output. */
export async function run(
  cwd: string,
  program: string,
  args: string[],
): Promise<{ status: number; output: string }> {
  const env = {
    ...process.env,
    PATH: `${join(cwd, '.bin')}${delimiter}${process.env.PATH}`,
    XDG_CACHE_HOME: join(cwd, '.cache'),
    HF_HUB_OFFLINE: '1',
    NO_COLOR: '1',
    FORCE_COLOR: undefined,
  };
  const child = spawn(program, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => void (output += chunk));
  const status = await new Promise<number>((resolve, reject) =>
    child.on('error', reject).on('close', (code) => resolve(code ?? 1)),
  );
  return { status, output };
}
