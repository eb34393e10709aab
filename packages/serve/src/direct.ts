/** The pictures of /caption and /answer: as a form, as JSON, or as the body itself. */
import { MIMEType } from 'node:util';
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

/** The text between the parts of a form: of the characters that RFC 2046 allows. */
function boundaryOf(type: string): string | undefined {
  try {
    const boundary = new MIMEType(type).params.get('boundary') ?? '';
    return /^[\w'()+,./:=? -]{1,70}$/.test(boundary) ? boundary : undefined;
  } catch {
    return undefined;
  }
}

async function readForm(body: Buffer<ArrayBuffer>, type: string, query: object): Promise<DirectRequest> {
  const damaged = (): never => {
    throw new HttpError(400, 'expected a form, found a damaged one', 'invalid_form');
  };
  const boundary = boundaryOf(type) ?? damaged();
  checkFormShape(body, boundary);
  // the parser gets the boundary that was checked, whatever else the header has
  const headers = { 'content-type': `multipart/form-data; boundary="${boundary}"` };
  const form = await new Response(body, { headers }).formData().catch(damaged);
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
