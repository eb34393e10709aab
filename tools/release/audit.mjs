#!/usr/bin/env node
// Checks the run-time dependencies of our packages: fails for known vulnerabilities that are high or critical. If the
// registry (a mirror, perhaps) does not support audits, prints a note and succeeds.
import { spawnSync } from 'node:child_process';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const { stdout } = spawnSync('npm', ['audit', '--omit=dev', '--json'], { cwd: ROOT, encoding: 'utf8' });
const { metadata, message, vulnerabilities } = JSON.parse(stdout || '{}');

if (!metadata) {
  console.log(`!!! SKIPPED: the registry did not answer npm audit: ${message ?? 'nothing'} !!!`);
} else {
  const { high, critical } = metadata.vulnerabilities;
  console.log(`npm audit: ${critical} critical, ${high} high`);
  const serious = Object.values(vulnerabilities).filter(({ severity }) => /high|critical/.test(severity));
  for (const { name, severity, range } of serious) console.error(`  ${name} ${range}: ${severity}`);
  if (serious.length > 0) process.exitCode = 1;
}
