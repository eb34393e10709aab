/** Where an adapter's files are: in the folder that was named, or one folder deeper, as safetensors or as a torch file. */
import { readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { openTorchCheckpoint, openWeights } from '@blip2/weights/node';
import { CONFIG, WEIGHTS } from './adapter';
import type { AdapterWeights } from './adapter';
import { AdapterError } from './errors';

/** The weights of PEFT before 0.8. */
const TORCH_WEIGHTS = 'adapter_model.bin';

/**
 * The folder with adapter_config.json: this one, or the only subfolder that has one (PEFT's named adapters, `checkpoint-500`).
 * A file of an adapter stands for its folder.
 * @throws AdapterError that describes what is there instead
 */
export async function adapterFolder(path: string): Promise<string> {
  const info = await stat(path).catch(() => undefined);
  if (info?.isFile() && [CONFIG, WEIGHTS, TORCH_WEIGHTS].includes(basename(path)))
    return adapterFolder(dirname(path));
  const names = await readdir(path).catch(() => [] as string[]);
  if (names.includes(CONFIG)) return path;
  const deeper: string[] = [];
  for (const name of names.sort())
    if (await stat(join(path, name, CONFIG)).catch(() => undefined)) deeper.push(join(path, name));
  if (deeper.length === 1) return deeper[0]!;
  throw new AdapterError(
    `${path}: expected an adapter with ${CONFIG}, found ${whatElse(names, deeper, info !== undefined)}`,
  );
}

function whatElse(names: readonly string[], deeper: readonly string[], exists: boolean): string {
  if (deeper.length > 1)
    return `${deeper.length} in its subfolders; name one: ${deeper.slice(0, 8).join(', ')}${deeper.length > 8 ? ', …' : ''}`;
  if (!exists) return 'no such folder';
  if (names.includes('config.json')) return 'a model (config.json); pass it as --model';
  if ([WEIGHTS, TORCH_WEIGHTS].some((name) => names.includes(name)))
    return `the weights of one alone; copy ${CONFIG} from where they were trained, without which their scale is unknown`;
  return names.length > 0 ? names.slice(0, 8).join(', ') : 'an empty folder';
}

/** Opens `adapter_model.safetensors` or, of older PEFT, `adapter_model.bin`. @throws WeightsError */
export async function openAdapterWeights(
  dir: string,
): Promise<AdapterWeights & { close: () => Promise<void> }> {
  const names = await readdir(dir);
  if (names.includes(WEIGHTS)) return openWeights(join(dir, WEIGHTS));
  if (!names.includes(TORCH_WEIGHTS))
    throw new AdapterError(
      `${dir}: expected ${WEIGHTS} or ${TORCH_WEIGHTS} beside ${CONFIG}, found none; copy or fetch it`,
    );
  const { path, tensors, readFloat32, close } = await openTorchCheckpoint(join(dir, TORCH_WEIGHTS));
  return { path, entries: tensors, readFloat32, close };
}
