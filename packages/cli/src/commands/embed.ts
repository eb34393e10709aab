/** `blip2 embed`: vectors of pictures and texts, for a search of one's own. */
import type { Command } from 'commander';
import { writeFileAtomic } from '@blip2/weights/node';
import { UsageError } from '../errors';
import { command, PICTURES } from '../options';
import { findPictures } from '../pictures';
import { eachBatch, imageVectors, openRetrieval, retrievalOptions, textVectors } from '../retrieval';
import type { RetrievalFlags } from '../retrieval';
import type { Ui } from '../ui';

interface EmbedFlags extends RetrievalFlags {
  text?: string[];
  output?: string;
}

export function embedCommand(ui: Ui): Command {
  const embed = command(
    'embed',
    'Write vectors of images and texts. The similarity of an image and a text is the largest product of the vector of the text and a vector of the image.',
    'blip2 embed photos --model Salesforce/blip2-itm-vit-g --output vectors.jsonl',
  ).argument('[image...]', PICTURES);
  return retrievalOptions(embed)
    .option('--text <text...>', 'texts')
    .option('--output <file>', 'write there, one JSON object per line (default: stdout)')
    .action((images: string[], flags: EmbedFlags) => embedAll(images, flags, ui));
}

async function embedAll(args: string[], flags: EmbedFlags, ui: Ui): Promise<void> {
  const { text: texts = [], output } = flags;
  if (args.length === 0 && texts.length === 0)
    throw new UsageError('expected images, or --text; found neither');
  const images = args.length > 0 ? await findPictures(args, ui.io) : [];
  const opened = await openRetrieval(flags, ui);
  const P = opened.model.config.image_text_hidden_size;
  const rows: object[] = [];
  await eachBatch(opened, images, ui, async (tokens, from) => {
    for (const [i, values] of (await imageVectors(opened, tokens)).entries())
      rows.push({ image: images[from + i], vectors: vectorsOf(values, P) });
  });
  for (const [i, values] of (await textVectors(opened, texts)).entries())
    rows.push({ text: texts[i], vector: [...values] });
  const lines = rows.map((row) => JSON.stringify(row) + '\n').join('');
  if (output !== undefined) await writeFileAtomic(output, lines);
  const { model } = flags;
  if (output === undefined) ui.result({ model, rows }, lines.trimEnd());
  else
    ui.result(
      { model, output, images: images.length, texts: texts.length },
      `${rows.length} rows in ${output}`,
    );
}

const vectorsOf = (values: Float32Array, width: number) =>
  Array.from({ length: values.length / width }, (_, q) => [...values.subarray(q * width, (q + 1) * width)]);
