#!/usr/bin/env node
// Known holes of what our packages bring along: fails where npm knows one that is high or critical. Mirrors of the registry may not
// answer; that is said, and is no failure.
import { spawnSync } from 'node:child_process';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const { stdout } = spawnSync('npm', ['audit', '--omit=dev', '--json'], { cwd: ROOT, encoding: 'utf8' });
const { metadata, message, vulnerabilities } = JSON.parse(stdout || '{}');

if (!metadata) {
  console.log(`!!! SKIPPED: npm audit got no answer from the registry: ${message ?? 'nothing'} !!!`);
} else {
  const { high, critical } = metadata.vulnerabilities;
  console.log(`npm audit: ${critical} critical, ${high} high`);
  const serious = Object.values(vulnerabilities).filter(({ severity }) => /high|critical/.test(severity));
  for (const { name, severity, range } of serious) console.error(`  ${name} ${range}: ${severity}`);
  if (serious.length > 0) process.exitCode = 1;
}
