/** The messages that docs/troubleshooting.md quotes in its headings are in the sources of the packages. */
import { describe, expect, it } from 'vitest';
import { files, read } from '../spec/blocks';

/** The sources, with strings that are joined by `+` made whole. */
const sources = files('packages/*/src/*.ts')
  .filter((path) => !path.endsWith('.spec.ts'))
  .map((path) => read(path).replace(/['"`]\s*\+\s*['"`]/g, ''));

const headings = [...read('docs/troubleshooting.md').matchAll(/^### (.*)$/gm)].map(([, heading]) => heading);
const quoted = headings.flatMap((heading) => /`([^`]+)`$/.exec(heading)?.[1] ?? []);

describe('the message', () => {
  it.each(quoted)('%s', (message) => {
    const parts = message.split('…').map((part) => part.trim());
    const found = sources.some((source) => parts.every((part) => source.includes(part)));
    expect(found, `expected a source with ${parts.map((part) => `"${part}"`).join(' and ')}`).toBe(true);
  });

  it('is in most headings', () => expect(quoted.length).toBeGreaterThan(15));
});
