/**
 * app/api/caption/route.ts of Next.js: posts a form with a picture, gets a caption. In next.config: serverExternalPackages:
 * ['@blip2/captioner']. The captioner is made once and kept for all requests.
 */
import { CaptionerError, createCaptioner } from '@blip2/captioner';
import type { Captioner } from '@blip2/captioner';

export const runtime = 'nodejs';

/** Kept outside the module, which Next.js loads again while you develop. */
const kept = globalThis as { captioner?: Promise<Captioner> };
const captioner = () =>
  (kept.captioner ??= createCaptioner({
    model: process.env.BLIP2_MODEL!,
    adapter: process.env.BLIP2_ADAPTER,
  }));

export async function POST(request: Request): Promise<Response> {
  const picture = (await request.formData()).get('picture');
  if (!(picture instanceof Blob)) return Response.json({ error: 'expected a picture' }, { status: 400 });
  try {
    const { text, confidence } = await (await captioner()).caption(picture, { signal: request.signal });
    return Response.json({ text, confidence });
  } catch (error) {
    if (!(error instanceof CaptionerError)) throw error;
    const status = error.name === 'QueueFullError' ? 429 : error.name === 'ImageError' ? 400 : 503;
    return Response.json({ error: error.message }, { status });
  }
}
