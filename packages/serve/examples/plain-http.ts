/** A server of node:http that describes the pictures that are posted to it. */
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import { CaptionerError } from '@blip2/captioner';
import type { Captioner } from '@blip2/captioner';

const MOST_BYTES = 20 * 2 ** 20;

export function captionServer(captioner: Captioner): Server {
  return createServer((request, response) => {
    const answer = (status: number, body: object) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    const parts: Buffer[] = [];
    let size = 0;
    request.on('data', (part: Buffer) => {
      size += part.length;
      if (size <= MOST_BYTES) parts.push(part);
    });
    request.on('end', () => {
      if (size > MOST_BYTES) return void answer(413, { error: 'the picture is too large' });
      captioner.caption(Buffer.concat(parts)).then(
        ({ text, confidence }) => answer(200, { text, confidence }),
        (error: Error) => answer(statusOf(error), { error: error.message }),
      );
    });
  });
}

function statusOf(error: Error): number {
  if (!(error instanceof CaptionerError)) return 500;
  if (error.name === 'QueueFullError') return 429;
  return error.name === 'ImageError' || error.name === 'RequestError' ? 400 : 503;
}
