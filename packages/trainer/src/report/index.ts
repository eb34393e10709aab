/** report.html: one file that shows the results of a run. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '@blip2/weights/node';
import { decodingOf } from '../config';
import { html } from './html';
import { pictureUri } from './pictures';
import type { Run, SampleRow } from './run-files';
import { readRun } from './run-files';
import {
  curvesSection,
  detailsSection,
  heading,
  headline,
  resultsSection,
  samplesSection,
  title,
  usageSection,
  verdictSection,
} from './sections';
import { spread } from './spread';
import { STYLE } from './style';

export type { MetricRow, RunResults, SampleRow } from './run-files';

const SHOWN = 24;

/** Writes `report.html` into a run folder from the files there, and returns its path. */
export async function writeReport(runDir: string): Promise<string> {
  const run = await readRun(runDir);
  const samples = spread(run.samples, SHOWN);
  const pictures = await Promise.all(samples.map(({ image }) => pictureUri(image, decodingOf(run.config))));
  const file = join(runDir, 'report.html');
  await writeFileAtomic(file, page(run, samples, pictures));
  return file;
}

function page(run: Run, samples: SampleRow[], pictures: (string | undefined)[]): string {
  const there = (...path: string[]) => existsSync(join(run.dir, ...path));
  const made = there('model') ? 'model' : 'adapter';
  const hasExtra = there('adapter', 'extra_trainables.safetensors');
  const body = html`${heading(run)} ${verdictSection(run)} ${headline(run)} ${resultsSection(run)}
  ${curvesSection(run)} ${samplesSection(samples, pictures)} ${usageSection(run, made, hasExtra)}
  ${detailsSection(run)}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
${html`<title>${title(run)}</title>`}
<style>${STYLE}</style>
</head>
<body><main>
${body}
</main></body>
</html>
`;
}
