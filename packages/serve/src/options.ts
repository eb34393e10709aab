/** Options of generation in a request: under OpenAI's names, or under ours. */
import type { TextOptions } from '@blip2/captioner';
import { HttpError } from './errors';

/** What one request may ask for at most: the memory of beams, and the time of tokens. */
export interface TextLimits {
  max_beams: number;
  max_tokens: number;
}

type Fields = Record<string, unknown>;

const wrong = (name: string, expected: string, found: unknown): never => {
  const shown = (
    JSON.stringify(typeof found === 'string' ? found.slice(0, 80) : found) ?? String(found)
  ).slice(0, 80);
  throw new HttpError(400, `${name}: expected ${expected}, found ${shown}`);
};

export function numberIn(fields: Fields, name: string): number | undefined {
  const value = fields[name] ?? undefined;
  return value === undefined || (typeof value === 'number' && Number.isFinite(value))
    ? value
    : wrong(name, 'a number', value);
}

export function textIn(fields: Fields, name: string): string | undefined {
  const value = fields[name] ?? undefined;
  return value === undefined || typeof value === 'string' ? value : wrong(name, 'a text', value);
}

/** True or false; also as a text, in forms and addresses. */
export function flagIn(fields: Fields, name: string): boolean | undefined {
  const value = fields[name] ?? undefined;
  if (value === undefined || typeof value === 'boolean') return value;
  return value === 'true' || (value === 'false' ? false : wrong(name, 'true or false', value));
}

/** What a chat asks for that this server does not do; ignoring it would give an answer to another question. */
export function refuseUnsupported(body: Fields): void {
  const { n, tools, functions, response_format, frequency_penalty, presence_penalty, logit_bias } = body;
  const format =
    response_format === undefined || response_format === null ? undefined : typeOf(response_format);
  const found = [
    n !== undefined && n !== null && n !== 1 && 'n above 1',
    [tools, functions].some((list) => !isEmpty(list)) && 'tools',
    format !== undefined && format !== 'text' && 'response_format',
    !!frequency_penalty && 'frequency_penalty',
    !!presence_penalty && 'presence_penalty',
    !isEmpty(logit_bias) && 'logit_bias',
  ].filter((one) => typeof one === 'string');
  if (found.length > 0)
    throw new HttpError(400, `not supported by this model: ${found.join(', ')}`, 'unsupported');
}

const isEmpty = (value: unknown) =>
  value === undefined || value === null || (typeof value === 'object' && Object.keys(value).length === 0);

const typeOf = (format: unknown) => (format as { type?: unknown }).type ?? 'none';

/** @throws HttpError (400) for more than one request may ask for */
function within<T extends TextOptions>(options: T, { max_beams, max_tokens }: TextLimits): T {
  const { num_beams = 1, max_new_tokens = 1 } = options;
  if (num_beams > max_beams) wrong('num_beams', `at most ${max_beams}`, num_beams);
  if (max_new_tokens > max_tokens) wrong('max_new_tokens', `at most ${max_tokens}`, max_new_tokens);
  return options;
}

/** How many likely tokens are wanted at each position. @throws HttpError (400) as OpenAI's server: out of range, or without `logprobs` */
export function topLogprobs(body: Fields): number {
  const most = numberIn(body, 'top_logprobs') ?? 0;
  if (!Number.isInteger(most) || most < 0 || most > 20)
    wrong('top_logprobs', 'a whole number from 0 to 20', most);
  if (most > 0 && body.logprobs !== true) wrong('top_logprobs', 'logprobs: true with it', body.logprobs);
  return most;
}

/** Texts that end an answer, and characters of each: all are looked for after every token. */
const [MOST_STOPS, MOST_STOP] = [16, 256];

/** Without `temperature`, or with 0, the likeliest tokens are taken. */
export function chatOptions(body: Fields, limits: TextLimits): TextOptions & { stop_strings?: string[] } {
  const temperature = numberIn(body, 'temperature') ?? 0;
  if (temperature < 0) wrong('temperature', 'a number of at least 0', temperature);
  const stop = body.stop ?? undefined;
  const stops = stop === undefined ? undefined : [stop].flat();
  if (stops?.some((one) => typeof one !== 'string' || one === '' || one.length > MOST_STOP))
    wrong('stop', `texts of 1 to ${MOST_STOP} characters`, stop);
  if (stops && stops.length > MOST_STOPS) wrong('stop', `at most ${MOST_STOPS} texts`, stop);
  const options = defined({
    max_new_tokens: numberIn(body, 'max_completion_tokens') ?? numberIn(body, 'max_tokens'),
    stop_strings: stops?.length ? (stops as string[]) : undefined,
    ...(temperature > 0 && {
      do_sample: true,
      temperature,
      top_k: 0,
      top_p: numberIn(body, 'top_p'),
      seed: numberIn(body, 'seed') ?? Math.floor(Math.random() * 2 ** 31),
    }),
  });
  return within(options, limits);
}

const NUMBERS = [
  'max_new_tokens',
  'min_new_tokens',
  'num_beams',
  'length_penalty',
  'repetition_penalty',
  'no_repeat_ngram_size',
] as const;
const SAMPLING = ['temperature', 'top_k', 'top_p', 'seed'] as const;

/**
 * Options of `caption` and `answer` of a captioner, from JSON or from text fields.
 * @param others names of fields that are no options
 * @throws HttpError (400) for an unknown field: ignoring a name that is mistyped would give another text
 */
export function textOptions(fields: Fields, limits: TextLimits, others: readonly string[]): TextOptions {
  const known: readonly string[] = [...NUMBERS, ...SAMPLING, 'do_sample', 'prompt', ...others];
  for (const name of Object.keys(fields))
    if (!known.includes(name))
      throw new HttpError(
        400,
        `${name.slice(0, 40)}: is no field of this request; expected ${known.join(', ')}`,
      );
  const numbers = [...NUMBERS, ...SAMPLING].map((name) => [name, numberIn(withNumbers(fields), name)]);
  const options: TextOptions = defined({
    ...Object.fromEntries(numbers),
    do_sample: flagIn(fields, 'do_sample'),
    prompt: textIn(fields, 'prompt'),
  });
  return within(options, limits);
}

/** Fields of forms and addresses are texts. */
const withNumbers = (fields: Fields): Fields =>
  Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [
      name,
      typeof value === 'string' && value.trim() !== '' && Number.isFinite(Number(value))
        ? Number(value)
        : value,
    ]),
  );

const defined = <T extends object>(options: T): T =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T;
