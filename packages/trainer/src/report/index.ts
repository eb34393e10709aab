/** report.html: one file that shows the results of a run. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '@blip2/weights/node';
import { decodingOf } from '../config';
import { curvesSection } from './curves';
import { html } from './html';
import type { Page } from './page';
import { renderPage } from './page';
import { courseSection, embedded, picturesSection, shotsOf } from './pictures';
import { confusionsSection, resultsSection } from './results-part';
import type { Run } from './run-files';
import { readRun } from './run-files';
import { detailsSection, usageSection } from './usage';
import { heading, headline, title, verdictSection } from './verdict-part';

export type { MetricRow } from '../run/logs';
export { readRun } from './run-files';
export type { Run, RunResults, SampleRow } from './run-files';

/** Writes `report.html` into a run folder from the files there, and returns its path. */
export async function writeReport(runDir: string): Promise<string> {
  const file = join(runDir, 'report.html');
  await writeFileAtomic(file, await reportHtml(runDir));
  return file;
}

/**
 * The page of a run, from the files in its folder.
 * @param isShown whether a picture may be in it; default: all that can be read
 */
export async function reportHtml(
  runDir: string,
  isShown: (image: string) => Promise<boolean> = () => Promise.resolve(true),
): Promise<string> {
  const run = await readRun(runDir);
  const images = [...new Set([...run.course, ...shotsOf(run)].map(({ image }) => image))];
  const shown = await Promise.all(images.map(isShown));
  const allowed = images.filter((_, i) => shown[i]);
  return renderPage(reportPage(run, await embedded(allowed, decodingOf(run.config))));
}

function reportPage(run: Run, pictures: Map<string, string>): Page {
  const there = (...path: string[]) => existsSync(join(run.dir, ...path));
  const made = there('model') ? 'model' : 'adapter';
  const hasExtra = there('adapter', 'extra_trainables.safetensors');
  return {
    title: title(run),
    top: html`${heading(run)} ${verdictSection(run)} ${headline(run)}`,
    sections: [
      ['results', 'Results', resultsSection(run)],
      ['curves', 'Curves', curvesSection(run)],
      ['confusions', 'Confusions', confusionsSection(run)],
      ['course', 'While it learned', courseSection(run.course, pictures)],
      ['pictures', 'Pictures', picturesSection(shotsOf(run), pictures, run.results?.verdict?.headline)],
      ['use', 'Use it', usageSection(run, made, hasExtra)],
      ['repeat', 'Repeat it', detailsSection(run)],
    ],
  };
}
