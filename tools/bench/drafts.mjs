/**
 * How many tokens a pass of the text model gives if the training captions suggest the next ones (docs/decisions/0018): the greedy texts of
 * finished runs, read again token by token.
 *
 *   node tools/bench/drafts.mjs RUN…
 *
 * The texts are those of the run's test split, which it never trained on. The first token comes from the pass over the prompt, which is not
 * counted. A pass checks a draft, and gives its right tokens and one more.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { draftsOf } from '../../packages/blip2/dist/index.js';
import { loadTokenizer, openDataset } from '../../packages/data-captions/dist/index.js';
import { openRun } from '../../packages/trainer/dist/index.js';

/** In place of the end token. */
const END = -2;

for (const run of process.argv.slice(2)) {
  const { config } = await openRun(run);
  const { model, data, task, split_fractions, seed } = config;
  const tokenizer = await loadTokenizer(model);
  const { examples } = await openDataset(data, { split: 'train', task, split_fractions, seed });
  const captions = examples.flatMap(({ caption, captions = [caption] }) => captions);
  const draft = draftsOf(
    captions.map((text) => tokenizer.encode(text)),
    END,
  );
  const lines = (await readFile(join(run, 'samples.jsonl'), 'utf8')).trim().split('\n');
  const texts = lines.map((line) => [...tokenizer.encode(JSON.parse(line).after), END]);
  let [passes, tokens, drafted, right] = [0, 0, 0, 0];
  for (const text of texts) {
    tokens += text.length - 1;
    for (let at = 1; at < text.length; passes++) {
      const suggested = draft(text.slice(0, at));
      let same = 0;
      while (same < suggested.length && suggested[same] === text[at + same]) same++;
      drafted += suggested.length;
      right += same;
      at += same + 1;
    }
  }
  console.log(
    `${run}: ${captions.length} captions; ${texts.length} texts of ${(tokens / texts.length + 1).toFixed(1)} tokens; ` +
      `${(tokens / passes).toFixed(2)} tokens a pass, ${((100 * right) / drafted).toFixed(0)} % of the drafted ones right`,
  );
}
