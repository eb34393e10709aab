/** Captions and answers for an assistant: one model at a time, which stays loaded. */
import { createCaptioner } from '@blip2/captioner';
import type { Captioner, GeneratedText } from '@blip2/captioner';
import type { Workplace } from '@blip2/studio';
import { defaultCacheDir } from '@blip2/trainer';

/** Which model: what a run made, or a model with or without an adapter. */
export interface ModelChoice {
  run?: string;
  model?: string;
  adapter?: string;
}

export interface TextRequest extends ModelChoice {
  images: readonly string[];
  question?: string;
  prompt?: string;
  max_new_tokens?: number;
  num_beams?: number;
}

/** A text, or why there is none. */
export type TextResult =
  { image: string; text: string; confidence: number } | { image: string; error: string };

export interface Texts {
  /** @throws Error for a model that cannot be loaded; the error of a picture is in its result */
  ask(request: TextRequest, signal: AbortSignal): Promise<TextResult[]>;
  close(): Promise<void>;
}

/** Milliseconds without a request after which the model leaves memory. */
const IDLE = 600_000;

interface Open {
  key: string;
  captioner: Promise<Captioner>;
}

export function openTexts(workplace: Workplace): Texts {
  let open: Open | undefined;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  /** those that wait or run */
  let calls = 0;
  let last: Promise<unknown> = Promise.resolve();
  const drop = async () => {
    const old = open;
    open = undefined;
    await (await old?.captioner.catch(() => undefined))?.close();
  };
  async function captionerOf(choice: ModelChoice): Promise<Captioner> {
    const { model, adapter } = await foldersOf(choice, workplace);
    const key = JSON.stringify([model, adapter]);
    if (open?.key !== key) {
      const before = drop(); // its memory is freed first
      const options = { model, adapter, cache_dir: defaultCacheDir(), max_pixels: 50_000_000 };
      open = { key, captioner: before.then(() => createCaptioner(options)) };
      open.captioner.catch(() => open?.key === key && (open = undefined));
    }
    return open.captioner;
  }
  async function resultsOf({ images, ...request }: TextRequest, signal: AbortSignal): Promise<TextResult[]> {
    signal.throwIfAborted();
    if (closed) throw new Error('blip2 is ending; start it again');
    const captioner = await captionerOf(request);
    return Promise.all(
      images.map(async (image): Promise<TextResult> => {
        try {
          const path = await workplace.file(image);
          const { text, confidence } = await textOf(captioner, path, request, signal);
          return { image, text, confidence };
        } catch (error) {
          signal.throwIfAborted();
          return { image, error: (error as Error).message };
        }
      }),
    );
  }
  return {
    // one call after the other: the queue of the captioner has room for the pictures of one, and a model is not replaced under another
    async ask(request, signal) {
      clearTimeout(timer);
      calls++;
      const results = last.then(() => resultsOf(request, signal));
      last = results.catch(() => undefined);
      try {
        return await results;
      } finally {
        if (--calls === 0 && !closed) timer = setTimeout(() => void drop(), IDLE).unref();
      }
    },
    async close() {
      closed = true;
      clearTimeout(timer);
      await drop();
    },
  };
}

async function foldersOf(
  { run, model, adapter }: ModelChoice,
  workplace: Workplace,
): Promise<{ model: string; adapter?: string }> {
  if (run !== undefined && model === undefined && adapter === undefined) return workplace.result(run);
  if (run !== undefined || model === undefined)
    throw new Error('expected either run, or model with or without adapter');
  return {
    model: await workplace.model(model),
    adapter: adapter === undefined ? undefined : await workplace.model(adapter),
  };
}

function textOf(
  captioner: Captioner,
  path: string,
  { question, prompt, max_new_tokens, num_beams }: Omit<TextRequest, 'images'>,
  signal: AbortSignal,
): Promise<GeneratedText> {
  const options = {
    prompt,
    signal,
    ...(max_new_tokens && { max_new_tokens }),
    ...(num_beams && { num_beams }),
  };
  return question === undefined
    ? captioner.caption(path, options)
    : captioner.answer(path, question, options);
}
