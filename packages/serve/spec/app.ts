/** The app with a captioner of its own, and requests to it. */
import type { Captioner } from '@blip2/captioner';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createApp } from '../src/index';
import type { AppOptions } from '../src/index';
import { openCaptioner } from './testing';

interface TestedApp {
  /** once the suite has begun */
  readonly captioner: Captioner;
  ask(path: string, init?: RequestInit, options?: AppOptions): Promise<Response>;
}

/** Call it once in a spec file. */
export function testedApp(): TestedApp {
  let captioner: Captioner;
  beforeAll(async () => void (captioner = await openCaptioner({ max_pixels: 1_000_000 })));
  afterAll(() => captioner.close());
  return {
    get captioner() {
      return captioner;
    },
    ask: async (path, init = {}, options = {}) => {
      const url = path.startsWith('http') ? path : `http://localhost${path}`;
      return createApp(captioner, options).fetch(new Request(url, init));
    },
  };
}

const errorOf = async (response: Response) =>
  ((await response.json()) as { error: { message: string; code: string } }).error;

/** What is refused: a title, path, request, options of the app, and the status. */
export type Refused = [string, string, RequestInit, AppOptions, number];

/** A test for each case; the app answers afterwards. */
export function testRefused({ ask }: TestedApp, cases: readonly Refused[]): void {
  it.each(cases)('%s', async (_, path, init, options, status) => {
    const response = await ask(path, init, options);
    expect(response.status).toBe(status);
    expect((await errorOf(response)).message).not.toMatch(/node_modules|\.[jt]s:/);
    if (status === 429) expect(response.headers.get('retry-after')).toBe('2');
    expect((await ask('/healthz')).status).toBe(200);
  });
}
