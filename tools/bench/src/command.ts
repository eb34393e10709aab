/** The subcommands. Tables go to stdout, progress to stderr. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BACKENDS, PRECISIONS } from '@blip2/nn';
import { runCaptions } from './caption';
import { captionerTable } from './captioner';
import { checkSameWork } from './check';
import { demoTables } from './demo';
import { gpuTables } from './gpu';
import { gpuMemoryTable } from './gpu-memory';
import { FULL_PARTS, fullTables, RIVALS } from './full';
import { measure, readMeasurements } from './measure';
import { readOptions, UsageError } from './options';
import type { Options } from './options';
import { measurePeak } from './peak';
import type { Sides } from './sides';
import { runSteps, STEP_PRESETS } from './step';

const HELP = `Measures training and captioning with this project and with transformers + PEFT on PyTorch, on the same work.

  npm run bench -- full --model DIR --python PYTHON     every table of a full-size model
  npm run bench -- demo --python PYTHON                 the demo job
  npm run bench -- check --python PYTHON                only check that both sides compute the same
  npm run bench -- gpu --model DIR --python PYTHON      our backend webgpu beside PyTorch on CUDA: ten minutes
  node tools/bench/gpu-archive.mjs FILE                 the same in one archive, for a machine without a network
  npm run bench -- gpu-memory --model DIR               bytes of a GPU's buffers in a step, counted without a GPU
  npm run bench -- measure [NAME …]                     repeat the measurements of the documents and update them; default all
  npm run bench -- measure --render                     only update the documents from docs/measurements.json
  npm run bench -- peak                                 largest possible rate of the cores
  npm run bench -- captioner --model DIR                a captioner beside direct calls, under load
  npm run bench -- step --model DIR --work FILE         our side alone, one JSON line
  npm run bench -- caption --model DIR --work FILE

Options of full and demo
  --python FILE       with torch, transformers, peft, pillow           default python3
  --threads N         of both sides                                    default 2
  --steps N           timed steps of a measurement                     default 3
  --rounds N          repetitions of a measurement, sides alternate    default 1
  --attention NAME    PyTorch's: sdpa, eager, or auto: the faster one  default auto
  --directory DIR     keep work files in this folder
Options of full
  --model DIR         python tools/bench/python/write_checkpoint.py DIR
  --parts LIST        ${FULL_PARTS.join(',')}  default all
  --precision NAME    of our matmuls                                   default bfloat16
  --rivals LIST       PyTorch's precisions: bfloat16, int8 (dynamic)   default bfloat16
  --presets LIST      of the steps: lora, qformer, lora+qformer        default lora,qformer
  --upper N           layers of the part "upper"                       default 8
  --beams LIST        of the captions                                  default 1,5
  --batches LIST      default 4,8
  --texts LIST        tokens of the text                               default 12,96
  --epoch-images N    images of the epoch                              default 16
Options of gpu: those of full, without --parts, --rivals, --upper and --epoch-images; --batches 4,16.
                  Without PyTorch it measures our side alone, and without --model random weights of blip2-opt-2.7b (7.5 GB in --directory)
  --device NAME       PyTorch's: cuda, or cpu to try the script         default cuda
  --quick             steps alone
Options of gpu-memory
  --model DIR
  --precisions LIST   float32 keeps weights as they are stored         default float32,int8,int4
  --presets LIST      default lora
  --batches LIST      default 4
  --texts LIST        tokens of the text                               default 12,96
Options of captioner
  --model DIR, --directory DIR, --precision NAME (bfloat16)
  --loads LIST        requests at a time                               default 1,4,16
  --requests N        of each client                                   default 2
  --new-tokens N      of each caption                                  default 20
Options of demo
  --config FILE       default recipes/emoji-demo.yaml`;

/** Options of `step` and `caption`, which run in their own process. */
const SIDE = { model: null, work: null, threads: '2', precision: 'float32', backend: 'auto' };
const COMMON = {
  ...{ python: 'python3', threads: '2', steps: '3', rounds: '1', attention: 'auto', directory: undefined },
};

export async function main(args: readonly string[]): Promise<void> {
  const [name = 'help', ...rest] = args;
  const command = commands[name as keyof typeof commands];
  if (!command) {
    if (name === 'help' || name === '--help' || name === '-h') return console.log(HELP);
    throw new UsageError(`there is no command "${name}"\n\n${HELP}`);
  }
  if (rest.includes('--help')) return console.log(HELP);
  await command(rest);
}

const commands = {
  step: async (args: string[]) => {
    const o = readOptions(args, {
      ...SIDE,
      ...{ preset: 'lora', steps: '5', lr: '1e-4', features: 'none', adapter: undefined },
      ...{ 'no-dropout': false, kernels: false, upper: undefined },
    });
    print(
      await runSteps({
        ...sideOptions(o),
        preset: o.oneOf('preset', STEP_PRESETS),
        steps: o.count('steps'),
        lr: o.positive('lr'),
        features: o.oneOf('features', ['none', 'ready']),
        adapter: o.maybe('adapter'),
        noDropout: o.flag('no-dropout'),
        kernels: o.flag('kernels'),
        upper: o.maybe('upper') === undefined ? undefined : o.count('upper'),
      }),
    );
  },
  caption: async (args: string[]) => {
    const o = readOptions(args, { ...SIDE, beams: '1', 'new-tokens': '20', repeat: '3' });
    const counts = { beams: o.count('beams'), newTokens: o.count('new-tokens'), repeat: o.count('repeat') };
    print(await runCaptions({ ...sideOptions(o), ...counts }));
  },
  captioner: async (args: string[]) => {
    const o = readOptions(args, {
      ...{ model: null, directory: undefined, precision: 'bfloat16' },
      ...{ loads: '1,4,16', requests: '2', 'new-tokens': '20' },
    });
    await inDirectory(o, async (dir) => {
      const counts = {
        loads: o.counts('loads'),
        repeat: o.count('requests'),
        newTokens: o.count('new-tokens'),
      };
      console.log(
        await captionerTable({ model: o.text('model'), precision: o.precision(), dir, ...counts, say }),
      );
    });
  },
  peak: async (args: string[]) => {
    const o = readOptions(args, { threads: '2' });
    print(await measurePeak(o.count('threads')));
  },
  check: async (args: string[]) => {
    const o = readOptions(args, COMMON);
    await inDirectory(o, async (dir) => say(await checkSameWork(sidesOf(o), dir)));
  },
  measure: async (args: string[]) => {
    const names = args.filter((word) => word !== '--render');
    const all = args.length === 0 ? Object.keys(await readMeasurements()) : names;
    await measure(all, say);
  },
  full: async (args: string[]) => {
    const o = readOptions(args, {
      ...COMMON,
      ...{ model: null, parts: FULL_PARTS.join(), precision: 'bfloat16', rivals: 'bfloat16' },
      ...{ presets: 'lora,qformer', beams: '1,5', upper: '8' },
      ...{ batches: '4,8', texts: '12,96', 'epoch-images': '16' },
    });
    await inDirectory(o, async (dir) => {
      const sides = sidesOf(o);
      say(await checkSameWork(sides, dir));
      await fullTables(sides, {
        dir,
        model: o.text('model'),
        parts: o.list('parts', FULL_PARTS),
        precision: o.precision(),
        rivals: o.list('rivals', RIVALS),
        presets: o.list('presets', STEP_PRESETS),
        beams: o.counts('beams'),
        upper: o.count('upper'),
        batches: o.counts('batches'),
        texts: o.counts('texts'),
        steps: o.count('steps'),
        rounds: o.count('rounds'),
        epochImages: o.count('epoch-images'),
        findAttention: o.text('attention') === 'auto',
      });
    });
  },
  gpu: async (args: string[]) => {
    const o = readOptions(args, {
      ...{ ...COMMON, model: undefined, presets: 'lora,qformer', batches: '4,16', texts: '12,96' },
      ...{ device: 'cuda', quick: false, precision: 'bfloat16' },
    });
    await inDirectory(o, async (dir) => {
      const sides = sidesOf(o, { backend: 'webgpu', device: o.oneOf('device', ['cuda', 'cpu']) });
      await gpuTables(sides, {
        ...{ dir, model: o.maybe('model'), parts: o.flag('quick') ? ['steps'] : ['steps', 'captions'] },
        ...{ rivals: ['bfloat16'], beams: [1], upper: 8, epochImages: 16 },
        precision: o.precision(),
        presets: o.list('presets', STEP_PRESETS),
        batches: o.counts('batches'),
        texts: o.counts('texts'),
        steps: o.count('steps'),
        rounds: o.count('rounds'),
        findAttention: false,
      });
    });
  },
  'gpu-memory': async (args: string[]) => {
    const o = readOptions(args, {
      ...{ model: null, directory: undefined, precisions: 'float32,int8,int4' },
      ...{ presets: 'lora', batches: '4', texts: '12,96' },
    });
    await inDirectory(o, async (dir) => {
      const [model, precisions] = [o.text('model'), o.list('precisions', PRECISIONS)];
      const presets = o.list('presets', STEP_PRESETS);
      const sizes = { batches: o.counts('batches'), texts: o.counts('texts') };
      const bin = fileURLToPath(new URL('./bin.js', import.meta.url));
      console.log(await gpuMemoryTable({ dir, model, bin, precisions, presets, ...sizes, say }));
    });
  },
  demo: async (args: string[]) => {
    const o = readOptions(args, { ...COMMON, steps: '20', config: 'recipes/emoji-demo.yaml' });
    await inDirectory(o, async (dir) => {
      const sides = sidesOf(o);
      say(await checkSameWork(sides, dir));
      const counts = { steps: o.count('steps'), rounds: o.count('rounds') };
      await demoTables(sides, { dir, config: o.text('config'), ...counts });
    });
  },
};

const PROCESSOR = { backend: 'auto', device: 'cpu' } as const;
const print = (report: object) => console.log(JSON.stringify(report));
const say = (text: string) => console.error(text);

function sideOptions(o: Options) {
  const { model, work } = { model: o.text('model'), work: o.text('work') };
  const backend = o.oneOf('backend', ['auto', ...BACKENDS, 'counting']);
  return { model, work, threads: o.count('threads'), precision: o.precision(), backend };
}

function sidesOf(o: Options, where: Pick<Sides, 'backend' | 'device'> = PROCESSOR): Sides {
  const attention = o.oneOf('attention', ['auto', 'sdpa', 'eager']);
  return {
    python: o.text('python'),
    threads: o.count('threads'),
    attention: attention === 'auto' ? 'sdpa' : attention,
    bin: fileURLToPath(new URL('./bin.js', import.meta.url)),
    ...where,
    say,
  };
}

/** Calls `work` with the folder of --directory, or with a temporary one that is removed afterwards. */
async function inDirectory(o: Options, work: (dir: string) => Promise<void>): Promise<void> {
  const directory = o.maybe('directory');
  if (directory !== undefined) {
    await mkdir(directory, { recursive: true });
    return work(directory);
  }
  const dir = await mkdtemp(join(tmpdir(), 'blip2-bench-'));
  try {
    await work(dir);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
