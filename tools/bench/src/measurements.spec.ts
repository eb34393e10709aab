import { describe, expect, it } from 'vitest';
import type { Measurements } from './measurements';
import { render, tablesIn } from './measurements';

const steps = {
  head: ['', 's/step', 'speed'],
  rows: [
    ['PyTorch', '11.9', '1.00x'],
    ['ours', '5.01', '2.37x'],
  ],
};
const measurements: Measurements = {
  full: { command: 'npm run bench', date: '2026-11-24', machine: '2 cores', tables: { steps } },
};

describe('tables in the output of a command', () => {
  it('are found under their headings, without colours', () => {
    const output = [
      'machine',
      '### Steps',
      '',
      '|         | s/step | speed |',
      '| ------- | -----: | ----: |',
      '| PyTorch |   11.9 | 1.00x |',
      '| \u001b[1mours\u001b[22m    |   5.01 | 2.37x |',
      '',
      '### Captions, batch 8',
      '| a |',
      '| --- |',
      '| 1 |',
    ].join('\n');
    expect(tablesIn(output)).toEqual({ steps, 'captions-batch-8': { head: ['a'], rows: [['1']] } });
  });

  it('are read from the aligned columns of fit, notes included', () => {
    const output =
      'saved\n                  exact match    tone\nfine-tuned              68.9 %  96.7 %\nblank image              0.0 %   0.0 %  white\n\nrest  of it';
    expect(tablesIn(output)).toEqual({
      table: {
        head: ['', 'exact match', 'tone', ''],
        rows: [
          ['fine-tuned', '68.9 %', '96.7 %', ''],
          ['blank image', '0.0 %', '0.0 %', 'white'],
        ],
      },
    });
  });

  it('are none in other text', () => {
    expect(tablesIn('saved\nNX  Successfully ran\n')).toEqual({});
  });
});

describe('a document', () => {
  it('gets tables and single figures, and is the same when rendered again', () => {
    const text =
      'A\n\n<!-- measured: full/steps -->\nold\n<!-- /measured -->\n\nIt has <!--= full/steps | ours | speed -->9x<!--/=--> the speed.';
    const rendered = render(text, measurements);
    expect(rendered).toContain('| ours    |   5.01 | 2.37x |\n\nMeasured on 2026-11-24: `npm run bench`.');
    expect(rendered).toContain('-->2.37x<!--/=--> the speed.');
    expect(rendered).not.toContain('old');
    expect(render(rendered, measurements)).toBe(rendered);
  });

  it.each([
    ['<!-- measured: full/captions -->\n<!-- /measured -->', 'found "full/captions"; there are: full/steps'],
    ['<!--= full/steps | theirs | speed --><!--/=-->', 'expected a row "theirs" with a column "speed"'],
    ['<!--= full/steps | ours | seconds --><!--/=-->', 'expected a row "ours" with a column "seconds"'],
    ['<!-- measured: full/steps -->', 'expected an end for every mark'],
  ])('%j is refused', (text, message) => {
    expect(() => render(text, measurements)).toThrow(message);
  });
});
