/** Prints the input tokens of a data set's first rows, and their labels in the loss. */
import { collate, IGNORED, openDataset, promptFor, textPair } from '@blip2/data-captions';
import { taskOf } from '../options';
import { openProcessor } from '../model';
import { layoutIn } from '../options';
import type { Ui } from '../ui';
import { columns } from '../ui';

export interface LabelFlags {
  data: string;
  model: string;
  rows: number;
  split?: string;
  prompt?: string;
  task?: string;
}

interface TokenRow {
  position: number;
  id: number;
  token: string;
  /** null if the token is not part of the loss */
  label: number | null;
}

export async function inspectLabels(flags: LabelFlags, ui: Ui): Promise<void> {
  const { examples } = await openDataset(flags.data, {
    ...layoutIn(flags),
    split: flags.split,
    limit: flags.rows,
  });
  const processor = await openProcessor(flags.model);
  const task = taskOf(flags.task, examples[0]);
  const prompt = promptFor(task, flags.prompt, processor);
  const rows = examples.map((example) => {
    const { input_ids, labels, instructions } = collate([textPair(example, task, prompt)], processor);
    const isCausal = processor.rows === 'causal';
    const row = (id: number, position: number, label = IGNORED): TokenRow => ({
      position,
      id,
      token: processor.tokenizer.decode([id], false),
      label: label === IGNORED ? null : label,
    });
    const inputs = [...input_ids].map((id, position) =>
      row(id, position, isCausal ? labels[position] : IGNORED),
    );
    const targets = isCausal ? [] : [...labels].map((id, i) => row(id, inputs.length + i, id));
    const tokens = [...inputs, ...targets];
    const read = instructions && [...instructions.input_ids].map((id) => processor.qformer!.token(id));
    return { image: example.image, source: example.source, tokens, instruction: read };
  });
  ui.result({ task, rows }, () => rows.map((row) => describe(row, processor.imageToken)).join('\n\n'));
}

function describe(
  row: { source: string; tokens: TokenRow[]; instruction?: string[] },
  imageToken: number | undefined,
): string {
  const images = row.tokens.findIndex(({ id }) => id !== imageToken);
  const folded =
    images > 1 ? [[`0–${images - 1}`, String(imageToken), `<image> × ${images}`, 'not learned']] : [];
  const rest = row.tokens
    .slice(folded.length ? images : 0)
    .map(({ position, id, token, label }) => [
      String(position),
      String(id),
      JSON.stringify(token),
      label === null ? 'not learned' : `→ ${label}`,
    ]);
  const read = row.instruction ? [`the Q-Former reads ${row.instruction.join(' ')}`] : [];
  return [row.source, ...read, columns([['position', 'id', 'token', 'label'], ...folded, ...rest])].join(
    '\n',
  );
}
