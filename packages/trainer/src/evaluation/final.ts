/** The final table, on held-out examples. */
import type { WorkHooks } from '../hooks';
import type { SampleRow } from '../report/run-files';
import type { Cached } from '../stages';
import type { Evidence } from './evidence';
import { evidenceOf } from './evidence';
import type { Figures, ResultsTable } from '.';
import { judge, namedJudgement } from '.';
import { captionOptions, textsOf } from './texts';

/** The texts that the model generates now for the examples of the final table. @throws the signal's reason when it is raised */
export async function finalTexts(run: Cached, hooks: WorkHooks, name: string): Promise<string[] | undefined> {
  return run.final && textsOf(run, run.final.dataset.examples, progressOf(hooks, name));
}

const progressOf = (hooks: WorkHooks, name: string) => ({
  signal: hooks.signal,
  onProgress: (done: number, total: number) => hooks.onPhase?.({ name, done, total }),
});

/** The references of an example as fields of its row in a file of samples or predictions. */
export const namedReferences = (references: string[]) => ({
  reference: references[0],
  ...(references.length > 1 && { references }),
});

export interface FinalEvaluation {
  table: ResultsTable;
  /** of generated texts */
  figures?: Figures;
  /** what the verdict is made from */
  evidence: Evidence;
  samples: SampleRow[];
  /** the same figures as a row of metrics.jsonl */
  row: Record<string, number>;
}

/**
 * The final table, metrics, and their samples. All ranks generate the texts; the result of rank 0 counts.
 * @throws the signal's reason when it is raised
 */
export async function finalEvaluation(run: Cached, hooks: WorkHooks): Promise<FinalEvaluation | undefined> {
  const { config, data, final, model, processor, before, world, generate } = run;
  if (!final) return undefined;
  const { split, dataset } = final;
  const test = dataset.examples;
  const after = await textsOf(run, test, progressOf(hooks, `captioning ${split}`));
  const judgement = await judge(after, {
    ...captionOptions(run, test),
    name: 'fine-tuned',
    split,
    model,
    processor,
    generate,
    test,
    before,
    // what needs no texts of the model is left to rank 0
    ...(config.controls &&
      world.rank === 0 && { train: data.train.examples, validation: data.validation?.examples }),
    partsPattern: config.parts_pattern,
    seed: config.seed,
    signal: hooks.signal,
    onControl: (name) => hooks.onMessage?.(`control: ${name}`),
  });
  const { table, figures, others, references } = judgement;
  const { task, parts_pattern: partsPattern } = config;
  const evidence = evidenceOf({ ...others, task, examples: test, texts: after, partsPattern });
  const samples = test.map(({ image, question }, i) => ({
    image,
    ...(question === undefined ? {} : { question }),
    ...namedReferences(references[i]),
    ...(before ? { before: before[i] } : {}),
    after: after[i],
    score: evidence.rows[i],
  }));
  return { table, figures, evidence, samples, row: namedJudgement(judgement) };
}
