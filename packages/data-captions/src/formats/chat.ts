/**
 * Chats of one turn as a picture with a question and its answer: LLaVA's and ShareGPT's `conversations`, OpenAI's `messages`,
 * ms-swift's `query`/`response`, Alpaca's `instruction`/`input`/`output`.
 */
import type { Problem } from '../errors';
import { isTaken } from './base64';
import { listOf } from './python-list';
import type { Json } from './row';
import { isRecord } from './row';

export interface Chat {
  request: string;
  reply: string;
  /** The picture that the chat itself names. */
  image?: string;
  /** The other columns. */
  rest: Json;
}

type Refused = Omit<Problem, 'source'>;

const LISTS = ['conversations', 'messages', 'conversation', 'chat', 'dialog'];
const USER = new Set(['human', 'user']);
const MODEL = new Set(['gpt', 'assistant', 'model', 'bot', 'chatgpt']);
/** Marks at the place of the picture, as LLaVA, LLaMA-Factory and Qwen write them. */
const MARK =
  /<image>|<\|image(?:_\d+|_pad)?\|>|<\|vision_(?:start|end)\|>|<ImageHere>|<image_placeholder>|<\/?Img>/gi;
const QWEN = /(?:Picture \d+:\s*)?<img>(.*?)<\/img>/gis;

/** The chat in a row; undefined if it has none. */
export function chatOf(values: Json): Chat | Refused | undefined {
  const name = LISTS.find((key) => turnsIn(values[key]) !== undefined);
  if (name === undefined) return instruction(values);
  return oneTurn(turnsIn(values[name])!, without(values, name));
}

/** A record without some of its keys. */
export const without = (values: Json, ...keys: string[]): Json =>
  Object.fromEntries(Object.entries(values).filter(([name]) => !keys.includes(name)));

function turnsIn(value: unknown): Json[] | undefined {
  const list = typeof value === 'string' ? listOf(value) : value;
  if (!Array.isArray(list) || list.length === 0) return undefined;
  return list.every((turn) => isRecord(turn) && ('from' in turn || 'role' in turn))
    ? (list as Json[])
    : undefined;
}

function oneTurn(turns: Json[], values: Json): Chat | Refused {
  const roles = turns.map((turn) => String(turn.from ?? turn.role).toLowerCase());
  const said = turns.map((turn, i) => ({ role: roles[i], ...contentOf(turn.value ?? turn.content) }));
  const talk = said.filter(({ role }) => role !== 'system');
  const unknown = talk.find(({ role }) => !USER.has(role) && !MODEL.has(role));
  if (unknown)
    return { expected: 'turns of "user" and "assistant"', found: `a turn of "${unknown.role.slice(0, 30)}"` };
  const replies = talk.filter(({ role }) => MODEL.has(role));
  if (replies.length > 1 || talk.length > 2)
    return {
      expected: 'one question and its answer',
      found: `a chat of ${replies.length} answers; a later one may need the earlier ones: write a row for each that stands alone`,
    };
  if (replies.length === 0 || talk[talk.length - 1] !== replies[0])
    return { expected: 'an answer as the last turn', found: 'none' };
  const request = talk.length === 2 ? talk[0].text : '';
  return chatWith(
    request,
    replies[0].text,
    said.flatMap(({ images }) => images),
    values,
  );
}

/** The text of a turn, a string or a list of parts, and the pictures in it. */
function contentOf(content: unknown): { text: string; images: string[] } {
  if (!Array.isArray(content)) return { text: typeof content === 'string' ? content : '', images: [] };
  const parts = content.filter(isRecord);
  const images = parts.flatMap((part) => {
    const named = part.image_url ?? part.image ?? part.url ?? part.path;
    const image = isRecord(named) ? named.url : named;
    return typeof image === 'string' ? [image] : [];
  });
  return { text: parts.flatMap(({ text }) => (typeof text === 'string' ? [text] : [])).join('\n'), images };
}

function chatWith(request: string, reply: string, images: string[], values: Json): Chat | Refused {
  const named = [...images, ...[...request.matchAll(QWEN)].map(([, path]) => path)];
  const marks = request.match(/<image>/gi)?.length ?? 0;
  const count = Math.max(named.length, marks, Array.isArray(values.images) ? values.images.length : 0);
  if (count > 1) return { expected: 'one picture in a row', found: `a chat about ${count} pictures` };
  if (/<(?:video|audio)>/i.test(request))
    return { expected: 'a picture', found: 'a chat about a video or sound' };
  const image = named.find((one) => !isTaken(one));
  const bare = (text: string) => text.replace(QWEN, '').replace(MARK, '').trim();
  if (bare(reply) === '') return { expected: 'an answer with words in the chat', found: 'an empty one' };
  return { request: bare(request), reply: bare(reply), image, rest: values };
}

function instruction(values: Json): Chat | Refused | undefined {
  const { query, response, instruction: what, input, output } = values;
  const asked = typeof query === 'string' && typeof response === 'string';
  if (!asked && (typeof what !== 'string' || typeof output !== 'string')) return undefined;
  if (Array.isArray(values.history) && values.history.length > 0)
    return { expected: 'one question and its answer', found: 'a chat with a history' };
  const used = asked ? ['query', 'response', 'history'] : ['instruction', 'input', 'output', 'history'];
  const rest = without(values, ...used);
  if (asked) return chatWith(query, response, [], rest);
  const request = [what, input].filter((text) => typeof text === 'string' && text !== '').join('\n');
  return chatWith(request, output as string, [], rest);
}

/** Whether a request only asks to describe the picture, as the 27 of LLaVA's pretraining and detail data do. */
export function isDescription(request: string): boolean {
  const short = request.split(/\s+/).length <= 18 && !/\d/.test(request);
  const what =
    /^what (?:is|do you see) (?:this|in (?:this|the) (?:image|photo|picture))\?$|^what is in the (?:image|photo|picture)\?$/i;
  return (
    short && (what.test(request) || (VERB.test(request) && PICTURE.test(request) && !request.includes('?')))
  );
}
const VERB =
  /^(?:please )?(?:describe|provide|offer|summari[sz]e|give|share|present|relay|render|write|create|generate|caption|explain|clarify|characteri[sz]e|break down|walk through|portray|narrate|analy[sz]e|illustrate|examine)\b/i;
const PICTURE = /\b(?:image|photo|photograph|picture|caption)s?\b/i;
