// Runs the suites of @blip2/nn and of this package with an addon compiled with the address and undefined-behaviour sanitizers. The first
// error stops the process. Needs Linux and g++. Arguments are passed to vitest.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const root = fileURLToPath(new URL('../..', import.meta.url));

function run(program, args, env = {}, cwd = here) {
  const { status } = spawnSync(program, args, { cwd, stdio: 'inherit', env: { ...process.env, ...env } });
  if (status !== 0) process.exit(status ?? 1);
}

/** A library to preload: Node is not instrumented, so the sanitizer runtime must come first, and libstdc++ for exceptions. */
function runtime(name) {
  const [program, ...extra] = (process.env.CXX ?? 'c++').split(' ').filter(Boolean);
  const found = spawnSync(program, [...extra, `-print-file-name=${name}`], { encoding: 'utf8' });
  const file = found.stdout?.trim();
  if (file?.includes('/')) return file;
  console.error(`sanitize: ${program} has no ${name}; install the sanitizer runtime of your compiler`);
  return process.exit(1);
}

run(process.execPath, ['build.mjs', '--sanitize']);
const suites = ['--project', 'backend-native', '--project', 'nn', ...process.argv.slice(2)];
run(
  process.execPath,
  ['node_modules/vitest/vitest.mjs', 'run', ...suites, '--testTimeout', '600000', '--hookTimeout', '600000'],
  {
    LD_PRELOAD: `${runtime('libasan.so')} ${runtime('libstdc++.so.6')}`,
    // Node does not free its memory at exit. SIGBUS is the addon's: a mapped file that shrinks.
    ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=0:exitcode=99:handle_sigbus=0',
    UBSAN_OPTIONS: 'print_stacktrace=1',
    BLIP2_NATIVE_ADDON: `${here}build/sanitized/blip2_native.node`,
  },
  root,
);
