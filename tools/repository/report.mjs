// node tools/repository/report.mjs: adds up the results that `npm test` left in build/tests, with the failed tests and their messages;
// its last line is `N passed, N failed`.
// Fails for a suite that failed or left no results, and for a skipped test that skips.json does not allow with a reason.
import { existsSync, readFileSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createProjectGraphAsync } from '@nx/devkit';

const here = (path) => new URL(path, import.meta.url);
const root = fileURLToPath(here('../../'));
const read = (url) => JSON.parse(readFileSync(url, 'utf8'));
const allowed = read(here('skips.json'));
const missing = { numPassedTests: 0, numFailedTests: 0, success: false, testResults: [] };

/** What vitest's JSON has in place of the message of a test that took too long. */
const TOO_LONG = 'STACK_TRACE_ERROR';

/** The failed tests of a spec file, or why the file could not be run; the lines of messages that name our sources, 15 at most. */
function printFailures({ name, status, message, assertionResults }) {
  if (status !== 'failed') return;
  const failures = assertionResults.filter((test) => test.status === 'failed');
  if (failures.length === 0) failures.push({ fullName: 'the file', failureMessages: [message] });
  for (const { fullName, failureMessages, duration = 0 } of failures) {
    const lines = failureMessages.join('\n').replaceAll(TOO_LONG, 'the test took too long').split('\n');
    const own = lines.filter((line) => !/^ +at .*(node_modules|node:internal|<anonymous>)/.test(line));
    console.log(`  ${relative(root, name)}: ${fullName} (${(duration / 1000).toFixed(1)} s)`);
    for (const line of own.slice(0, 15)) console.log(`    ${line}`);
  }
}

const { nodes } = await createProjectGraphAsync();
let [passed, failed, bad] = [0, 0, 0];
for (const suite of Object.keys(nodes).filter((name) => nodes[name].data.targets.test)) {
  const file = here(`../../build/tests/${suite}.json`);
  const { numPassedTests, numFailedTests, success, testResults } = existsSync(file) ? read(file) : missing;
  passed += numPassedTests;
  failed += numFailedTests;
  if (!success) {
    bad++;
    console.log(`${suite}: ${existsSync(file) ? 'failed' : 'left no results'}`);
    testResults.forEach(printFailures);
  }
  for (const { fullName, status } of testResults.flatMap(({ assertionResults }) => assertionResults)) {
    if (status === 'passed' || status === 'failed') continue;
    const entry = allowed.find(({ suite: of, test }) => of === suite && fullName.includes(test));
    if (!entry) bad++;
    console.log(
      `${suite}: skipped "${fullName}": ${entry?.reason ?? 'not allowed by tools/repository/skips.json'}`,
    );
  }
}
console.log(`${passed} passed, ${failed} failed`);
if (bad > 0 || failed > 0 || passed === 0) process.exitCode = 1;
