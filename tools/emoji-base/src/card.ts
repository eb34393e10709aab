// The model card in the model folder.
import type { BaseData } from './base-data';
import type { Scores } from './evaluate';
import type { Progress } from './learner';
import type { PretrainOptions } from './options';

export interface CardFacts {
  options: PretrainOptions;
  data: BaseData;
  progress: Progress;
  parameters: number;
  scores: Scores;
}

/** README.md of the model folder. */
export function modelCard({ options, data, progress, parameters, scores }: CardFacts): string {
  const trained = data.items.filter((item) => item.use === 'base').length;
  const budget =
    'images' in options.budget ? `--images ${options.budget.images}` : `--minutes ${options.budget.minutes}`;
  return `# blip2-emoji-mini

A very small BLIP-2 (${parameters.toLocaleString('en')} parameters, bfloat16) trained from scratch on drawings of emoji, so that
fine-tuning can be shown in minutes on a laptop. It names emoji in the words of their Unicode (CLDR) labels. It knows nothing
about photographs.

## How it was made

    npx nx run trainer:pretrain ${budget} --batch ${options.batch} --lines ${options.lines} --lr ${options.lr} --seed ${options.seed}

${progress.images.toLocaleString('en')} images seen (${(progress.images / trained).toFixed(1)} passes), ${progress.step.toLocaleString('en')} updates of ${options.batch} images, ${(progress.seconds / 60).toFixed(0)} minutes. AdamW (0.9, 0.98),
weight decay 0.05 on matrices, peak learning rate ${options.lr}, 200 steps of warm-up, cosine to 2 %. Loss: captions + 0.5 × words
from the best query + 0.3 × image–text contrast + 0.2 × English lines for the language model alone. The extra heads were thrown away.

- Images: ${trained.toLocaleString('en')} drawings, 64 × 64, of Noto Emoji, Twemoji, OpenMoji and Fluent Emoji flat (pinned @iconify-json packages).
- Words: CLDR labels from emojibase-data, a quarter of them with an article; English lines from WordNet 3.1.
- Never seen: flags, the 210 (subject, activity, tone) triples of validation and test, 240 (object, style) cells, labels that
  name a person without saying woman or man, labels of two skin tones.
- Vision 5 × 192, patch 8; Q-Former 3 × 192, 32 queries; OPT 4 × 192, 96 positions; byte-level BPE of 2,048.

## What it can do

Greedy captions; exact means the whole label, an article ignored.

| images | n | exact | subject | activity | tone |
| --- | --- | --- | --- | --- | --- |
${table(scores)}

Subject and skin tone are words of the Unicode labels of drawings. They say nothing about people.

## Credits

Noto Emoji (Apache-2.0), Twemoji (CC-BY-4.0), OpenMoji (CC-BY-SA-4.0), Fluent Emoji (MIT), emojibase-data (MIT), WordNet 3.1
(WordNet licence, Princeton University). No drawing is contained in this folder.
`;
}

const NAMES: Record<keyof Scores, string> = {
  validation: 'validation triples, never seen',
  test: 'test triples, never seen',
  heldOut: 'objects in a style never seen',
  trained: 'objects trained on (sample)',
};

function table(scores: Scores): string {
  const cell = (value: number | undefined) => (value === undefined ? '' : value.toFixed(3));
  return (Object.keys(NAMES) as (keyof Scores)[])
    .flatMap((name) => {
      const s = scores[name];
      const cells = s && [s.exact, s.subject, s.activity, s.tone].map(cell);
      return cells ? [`| ${NAMES[name]} | ${s.count} | ${cells.join(' | ')} |`] : [];
    })
    .join('\n');
}
