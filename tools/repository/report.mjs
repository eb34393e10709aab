// node tools/repository/report.mjs: adds up the results that `npm test` left in build/tests; its last line is `N passed, N failed`.
// Fails for a suite that failed or left no results, and for a skipped test that skips.json does not allow with a reason.
import { existsSync, readFileSync } from 'node:fs';
import { createProjectGraphAsync } from '@nx/devkit';

const here = (path) => new URL(path, import.meta.url);
const read = (url) => JSON.parse(readFileSync(url, 'utf8'));
const allowed = read(here('skips.json'));
const missing = { numPassedTests: 0, numFailedTests: 0, success: false, testResults: [] };

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
