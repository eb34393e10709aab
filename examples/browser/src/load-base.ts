/** Fetches a checkpoint folder. */
import type { BaseFiles } from './session';

/** @throws Error that names the file that is missing */
export async function loadBase(
  folder: string,
  onProgress: (loaded: number, total: number) => void,
): Promise<BaseFiles> {
  const json = async (name: string) => (await (await get(folder + name)).json()) as Record<string, unknown>;
  const [config, preprocessor, tokenizer, tokenizerConfig] = await Promise.all([
    json('config.json'),
    json('preprocessor_config.json'),
    json('tokenizer.json'),
    json('tokenizer_config.json'),
  ]);
  return {
    'config.json': config!,
    'preprocessor_config.json': preprocessor!,
    'tokenizer.json': tokenizer!,
    'tokenizer_config.json': tokenizerConfig!,
    'model.safetensors': await bytes(await get(`${folder}model.safetensors`), onProgress),
  };
}

async function get(url: string): Promise<Response> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: expected a file, found status ${response.status}`);
  return response;
}

/** The body, piece by piece. */
async function bytes(
  response: Response,
  onProgress: (loaded: number, total: number) => void,
): Promise<Uint8Array> {
  const total = Number(response.headers.get('content-length') ?? 0);
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  let loaded = 0;
  for (const reader = response.body!.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    pieces.push(value);
    loaded += value.byteLength;
    onProgress(loaded, Math.max(total, loaded));
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}
