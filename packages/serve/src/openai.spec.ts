/** OpenAI's own client talks to the server. */
import type { Captioner } from '@blip2/captioner';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ADAPTER, chatBody, DATA_URL, openCaptioner, PICTURE } from '../spec/testing';
import { startServer } from './index';
import type { RunningServer } from './index';

let [captioner, server, client] = [{} as Captioner, {} as RunningServer, {} as OpenAI];
beforeAll(async () => {
  captioner = await openCaptioner({ adapters: { trained: ADAPTER } });
  server = await startServer(captioner, { port: 0, token: 'secret' });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'secret', maxRetries: 0 });
});
afterAll(async () => {
  await server.close();
  await captioner.close();
});

type Chat = OpenAI.Chat.ChatCompletionCreateParamsNonStreaming;
const chat = (more: object = {}, question?: string) => chatBody({ max_tokens: 6, ...more }, question) as Chat;

describe("OpenAI's client", () => {
  it('lists the models: adapters by their names, and the base', async () => {
    const ids: string[] = [];
    for await (const { id } of client.models.list()) ids.push(id);
    expect(ids).toEqual(['trained', 'tiny']);
    expect((await client.models.retrieve('tiny')).owned_by).toBe('blip2');
  });

  it('asks about a picture, and gets what the captioner answers', async () => {
    for (const model of ['tiny', 'trained']) {
      const found = await client.chat.completions.create(chat({ model, logprobs: true }));
      const adapter = model === 'tiny' ? 'base' : model;
      const own = await captioner.answer(PICTURE, 'what is it ?', { max_new_tokens: 6, adapter });
      expect(found.choices[0].message.content).toBe(own.text);
      expect(found.choices[0].finish_reason).toBe(own.end === 'length' ? 'length' : 'stop');
      expect(found.usage).toMatchObject({
        prompt_tokens: own.prompt_tokens,
        completion_tokens: own.tokens.length,
      });
      expect(found.choices[0].logprobs!.content!.map(({ token }) => token).join('')).toBe(own.text);
    }
  });

  it('gets a caption where it asks nothing', async () => {
    const messages = [{ role: 'user', content: [{ type: 'image_url', image_url: { url: DATA_URL } }] }];
    const found = await client.chat.completions.create(chat({ messages }));
    expect(found.choices[0].logprobs).toBeNull(); // it did not ask for them
    const own = await captioner.caption(PICTURE, { max_new_tokens: 6, adapter: 'base' });
    expect(found.choices[0].message.content).toBe(own.text);
  });

  it('gets the answer in pieces, and the count of tokens', async () => {
    const stream_options = { include_usage: true };
    const stream = await client.chat.completions.create({ ...chat(), stream: true, stream_options });
    const chunks: OpenAI.Chat.ChatCompletionChunk[] = [];
    for await (const chunk of stream) chunks.push(chunk);
    const whole = await client.chat.completions.create(chat());
    const pieces = chunks.flatMap(({ choices }) => choices.map(({ delta }) => delta.content ?? ''));
    expect(pieces.join('')).toBe(whole.choices[0].message.content);
    expect(chunks.at(-2)!.choices[0].finish_reason).toBe(whole.choices[0].finish_reason);
    expect(chunks.at(-1)!.usage).toEqual(whole.usage);
    expect(chunks.length).toBeGreaterThan(3);
  });

  it('gets the likeliest tokens at each place, whole and in pieces', async () => {
    const asked = chat({ logprobs: true, top_logprobs: 3 });
    const whole = await client.chat.completions.create(asked);
    const content = whole.choices[0].logprobs!.content!;
    for (const { token, logprob, bytes, top_logprobs } of content) {
      expect(top_logprobs).toHaveLength(3);
      expect(top_logprobs[0]).toEqual({ token, logprob: expect.closeTo(logprob, 5) as number, bytes }); // greedy
      expect(top_logprobs.map((one) => one.logprob)).toEqual(
        top_logprobs.map((one) => one.logprob).sort((a, b) => b - a),
      );
    }
    const stream = await client.chat.completions.create({ ...asked, stream: true });
    const streamed: typeof content = [];
    for await (const { choices } of stream) {
      const [{ delta, logprobs }] = choices;
      expect((logprobs?.content ?? []).map(({ token }) => token).join('')).toBe(delta.content ?? '');
      streamed.push(...(logprobs?.content ?? []));
    }
    expect(streamed).toEqual(content);
    const text = whole.choices[0].message.content!;
    const stop = text.slice(2, 4);
    const cut = await client.chat.completions.create({ ...asked, stop });
    expect(cut.choices[0].logprobs!.content!.map(({ token }) => token).join('')).toMatch(/^.{2,}/);
    expect(cut.choices[0].logprobs!.content!.length).toBeLessThan(content.length);
  });

  it('samples with a seed, and stops before a stop string, whole and in pieces', async () => {
    const sampled = chat({ temperature: 1.2, seed: 5, max_tokens: 10 });
    const [first, second] = [1, 2].map(
      async () => (await client.chat.completions.create(sampled)).choices[0],
    );
    const text = (await first).message.content!;
    expect((await second).message.content).toBe(text);
    const stop = text.slice(3, 6);
    const cut = await client.chat.completions.create({ ...sampled, stop });
    expect(cut.choices[0].message.content).toBe(text.slice(0, text.indexOf(stop)));
    const stream = await client.chat.completions.create({ ...sampled, stop: [stop], stream: true });
    let streamed = '';
    for await (const { choices } of stream) streamed += choices[0].delta.content ?? '';
    expect(streamed).toBe(cut.choices[0].message.content);
  });

  it.each([
    ['an unknown model', { model: 'gpt' }, OpenAI.NotFoundError, 'expected one of trained, tiny'],
    [
      'no picture',
      { messages: [{ role: 'user', content: 'hello' }] },
      OpenAI.BadRequestError,
      'one image_url',
    ],
    ['tools', { tools: [{ type: 'function', function: { name: 'f' } }] }, OpenAI.BadRequestError, 'tools'],
    ['more tokens than the model has room for', { max_tokens: 900 }, OpenAI.BadRequestError, 'positions'],
    [
      'too many tokens',
      { max_tokens: 5000 },
      OpenAI.BadRequestError,
      'max_new_tokens: expected at most 1024',
    ],
    ['a temperature that is no number', { temperature: 'hot' }, OpenAI.BadRequestError, 'temperature'],
  ])('gets its own error for %s', async (_, more, kind, message) => {
    const error = await client.chat.completions.create(chat(more)).catch((one: unknown) => one);
    expect(error).toBeInstanceOf(kind);
    expect((error as Error).message).toContain(message);
    const streamed = await client.chat.completions
      .create({ ...chat(more), stream: true })
      .catch((one: unknown) => one);
    expect(streamed).toBeInstanceOf(kind); // before the first event, so it has a status
  });

  it('is refused without the token', async () => {
    const other = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'guess', maxRetries: 0 });
    await expect(other.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
  });
});
