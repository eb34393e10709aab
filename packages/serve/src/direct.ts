/** The pictures of /caption and /answer: as a form, as JSON, or as the body itself. */
import { HttpError } from './errors';
import { parseJson } from './body';
import { fromBase64, pictureOf } from './picture';
import type { RemoteOptions } from './remote';
import { checkFormShape } from './shape';

export interface DirectRequest {
  picture: Uint8Array;
  /** question, model and options */
  fields: Record<string, unknown>;
}

/** @throws HttpError */
export async function readDirect(
  request: Request,
  body: Buffer<ArrayBuffer>,
  remote: RemoteOptions,
): Promise<DirectRequest> {
  const type = request.headers.get('content-type') ?? '';
  const query = Object.fromEntries(new URL(request.url).searchParams);
  if (/^multipart\/form-data/i.test(type)) return readForm(body, type, query);
  if (/^application\/json/i.test(type)) {
    const { image, ...fields } = parseJson(body);
    if (typeof image !== 'string') throw new HttpError(400, 'image: expected base64, or a data URL');
    const picture = /^[a-z]+:/i.test(image)
      ? await pictureOf(image, remote, request.signal)
      : fromBase64(image);
    return { picture, fields: { ...query, ...fields } };
  }
  if (body.length === 0)
    throw new HttpError(400, 'expected a picture as the body, a form, or JSON; found nothing');
  return { picture: body, fields: query };
}

async function readForm(body: Buffer<ArrayBuffer>, type: string, query: object): Promise<DirectRequest> {
  checkFormShape(body, type);
  const form = await new Response(body, { headers: { 'content-type': type } }).formData().catch((): never => {
    throw new HttpError(400, 'expected a form, found a damaged one', 'invalid_form');
  });
  const files = [...form.values()].filter((value) => typeof value !== 'string');
  if (files.length !== 1)
    throw new HttpError(400, `expected one file in the form, found ${files.length}`, 'invalid_form');
  const texts = [...form.entries()].filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string',
  );
  return {
    picture: new Uint8Array(await (files[0] as File).arrayBuffer()),
    fields: { ...query, ...Object.fromEntries(texts) },
  };
}
