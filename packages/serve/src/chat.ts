/** OpenAI's chat completions: one picture, and what is asked about it. */
import { randomUUID } from 'node:crypto';
import type { Captioner, GeneratedText, TextOptions } from '@blip2/captioner';
import type { Context } from 'hono';
import type { SSEStreamingApi } from 'hono/streaming';
import { streamSSE } from 'hono/streaming';
import { errorBody, HttpError } from './errors';
import { growingText } from './growing-text';
import { logprobsOf, tokensOf } from './logprobs';
import { chatOptions, flagIn, refuseUnsupported, textIn, topLogprobs } from './options';
import type { TextLimits } from './options';
import { pictureOf } from './picture';
import type { RemoteOptions } from './remote';
import { beforeStop } from './stop';

export interface ChatRequest {
  picture: Uint8Array;
  /** Without one, a caption is written. */
  question?: string;
  options: TextOptions & { stop_strings?: string[] };
  stream: boolean;
  includeUsage: boolean;
  logprobs: boolean;
}

interface Part {
  type?: unknown;
  text?: unknown;
  image_url?: unknown;
}

/** @throws HttpError */
export async function readChat(
  body: Record<string, unknown>,
  limits: TextLimits,
  remote: RemoteOptions,
  signal: AbortSignal,
): Promise<ChatRequest> {
  refuseUnsupported(body);
  const { messages } = body;
  if (!Array.isArray(messages) || messages.length === 0)
    throw new HttpError(400, 'messages: expected a list with at least one message');
  const parts = messages.map((message: unknown, i) => partsOf(message, i));
  const pictures = parts.flatMap(({ urls }) => urls);
  if (pictures.length !== 1)
    throw new HttpError(
      400,
      `messages: expected one image_url, since the model reads one picture; found ${pictures.length}`,
    );
  const options = { ...chatOptions(body, limits), top_tokens: topLogprobs(body) };
  const stream_options = body.stream_options as Record<string, unknown> | null | undefined;
  return {
    picture: await pictureOf(pictures[0], remote, signal),
    question: questionOf(parts),
    options,
    stream: flagIn(body, 'stream') ?? false,
    includeUsage: flagIn(stream_options ?? {}, 'include_usage') ?? false,
    logprobs: flagIn(body, 'logprobs') ?? false,
  };
}

interface Turn {
  role: string;
  text: string;
  urls: unknown[];
}

function partsOf(message: unknown, i: number): Turn {
  const { role, content } = (message ?? {}) as { role?: unknown; content?: unknown };
  const at = `messages[${i}]`;
  if (typeof role !== 'string' || !['system', 'developer', 'user', 'assistant'].includes(role))
    throw new HttpError(400, `${at}.role: expected system, developer, user or assistant`);
  if (typeof content === 'string') return { role, text: content.trim(), urls: [] };
  if (!Array.isArray(content)) throw new HttpError(400, `${at}.content: expected a text or a list of parts`);
  const texts: string[] = [];
  const urls: unknown[] = [];
  for (const part of content as Part[]) {
    if (part?.type === 'text' && typeof part.text === 'string') texts.push(part.text.trim());
    else if (part?.type === 'image_url')
      urls.push(
        typeof part.image_url === 'string'
          ? part.image_url
          : (part.image_url as { url?: unknown } | null)?.url,
      );
    else throw new HttpError(400, `${at}.content: expected parts of type text or image_url`);
  }
  return { role, text: texts.filter((text) => text !== '').join(' '), urls };
}

/**
 * The last question. Earlier turns and system messages are put in front of it, as LAVIS's demo does: the model has no other place for
 * them. Without any text it is undefined.
 */
function questionOf(turns: readonly Turn[]): string | undefined {
  const spoken = turns.filter(({ text }) => text !== '');
  if (spoken.length === 0) return undefined;
  if (spoken.at(-1)!.role === 'assistant')
    throw new HttpError(400, 'messages: expected a message of the user at the end');
  return spoken.map(({ text }) => text).join(' ');
}

const finishReason = ({ end }: GeneratedText) => (end === 'length' ? 'length' : 'stop');

const usageOf = ({ prompt_tokens, tokens }: GeneratedText) => ({
  prompt_tokens,
  completion_tokens: tokens.length,
  total_tokens: prompt_tokens + tokens.length,
});

/** What all parts of an answer begin with. */
type Head = { id: string; created: number; model: string };

/** Answers a chat, whole or as server-sent events. */
export function answerChat(
  c: Context,
  captioner: Captioner,
  request: ChatRequest,
  model: string,
): Promise<Response> {
  const head = { id: `chatcmpl-${randomUUID()}`, created: Math.floor(Date.now() / 1000), model };
  return (request.stream ? streamedChat : wholeChat)(c, captioner, request, head);
}

async function wholeChat(
  c: Context,
  captioner: Captioner,
  { picture, question, options, logprobs }: ChatRequest,
  head: Head,
): Promise<Response> {
  const made =
    question === undefined
      ? await captioner.caption(picture, options)
      : await captioner.answer(picture, question, options);
  const content = beforeStop(made.text, options.stop_strings ?? []);
  const message = { role: 'assistant', content, refusal: null };
  const choice = {
    index: 0,
    message,
    finish_reason: finishReason(made),
    logprobs: logprobs ? logprobsOf(tokensOf(made.tokens, content)) : null,
  };
  return c.json({ ...head, object: 'chat.completion', choices: [choice], usage: usageOf(made) });
}

/** The first token comes before the status, so that errors have theirs. */
async function streamedChat(
  c: Context,
  captioner: Captioner,
  { picture, question, options, includeUsage, logprobs }: ChatRequest,
  head: Head,
): Promise<Response> {
  const streamed =
    question === undefined
      ? captioner.streamCaption(picture, options)
      : captioner.streamAnswer(picture, question, options);
  const tokens = streamed[Symbol.asyncIterator]();
  const first = await tokens.next();
  return streamSSE(c, async (out) => {
    const { delta, usage } = chunksOf(out, head, includeUsage);
    try {
      await delta({ role: 'assistant', content: '' });
      const shown = growingText(options.stop_strings ?? [], logprobs);
      for (let next = first; !next.done; next = await tokens.next())
        for (const { content, more } of shown.add(next.value)) await delta({ content }, more);
      const made = await streamed.result;
      for (const { content, more } of shown.end(made.text)) await delta({ content }, more);
      await delta({}, { finish_reason: finishReason(made) });
      if (includeUsage) await usage(made);
      await out.writeSSE({ data: '[DONE]' });
    } catch (error) {
      await out.writeSSE({ data: errorBody(error) });
    } finally {
      await tokens.return?.();
    }
  });
}

/** Writers of the events of a stream. */
function chunksOf(out: SSEStreamingApi, head: Head, includeUsage: boolean) {
  const write = (fields: object) =>
    out.writeSSE({ data: JSON.stringify({ ...head, object: 'chat.completion.chunk', ...fields }) });
  return {
    delta: (delta: object, more: object = {}) =>
      write({
        choices: [{ index: 0, delta, finish_reason: null, logprobs: null, ...more }],
        ...(includeUsage && { usage: null }), // as OpenAI's, in all chunks but the last
      }),
    usage: (made: GeneratedText) => write({ choices: [], usage: usageOf(made) }),
  };
}

export const modelField = (body: Record<string, unknown>) => textIn(body, 'model');
