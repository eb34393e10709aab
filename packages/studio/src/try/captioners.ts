/** The captioners of "Try": one for each model, with the adapters of its runs. They stay open for the next picture. */
import { createCaptioner } from '@blip2/captioner';
import type { Captioner } from '@blip2/captioner';
import { TryError } from './models';
import type { TriedModel } from './models';

export interface Captioners {
  /**
   * Calls `work` with the captioner of each model; none is closed until it has ended. Adapters are named by their folders.
   * @throws TryError if others wait already; CaptionerError; the reason of the signal; what `work` throws
   */
  use<T>(
    models: readonly TriedModel[],
    signal: AbortSignal,
    work: (captioners: readonly Captioner[]) => Promise<T>,
  ): Promise<T>;
  /** Those that are used end with a ClosedError. */
  close(): Promise<void>;
}

/** Pictures at a time; those of others wait while a model is loaded. */
const MOST_USES = 4;

interface Open {
  model: string;
  /** of the model and of each adapter, by its folder */
  versions: ReadonlyMap<string, string>;
  captioner: Captioner;
  uses: Set<Promise<unknown>>;
}

/** @param worker the captioner's program; default: its own */
export function openCaptioners(worker?: URL): Captioners {
  let open: Open[] = [];
  let uses: AbortSignal[] = [];
  /** One after the other, so that a model is not loaded twice. */
  let last: Promise<unknown> = Promise.resolve();

  /** Those of other models, or of files that have changed, are closed first, to free their memory. */
  async function replace(models: readonly TriedModel[]): Promise<void> {
    const wanted = wantedFor(models);
    const fits = (one: Open) => isSubset(wanted.get(one.model), one.versions);
    const old = open.filter((one) => !fits(one));
    open = open.filter(fits);
    for (const { captioner, uses } of old) {
      await Promise.allSettled(uses);
      await captioner.close();
    }
    for (const [model, versions] of wanted) {
      if (open.some((one) => one.model === model)) continue;
      const adapters = Object.fromEntries(
        [...versions.keys()].flatMap((dir) => (dir === model ? [] : [[dir, dir]])),
      );
      open.push({
        model,
        versions,
        captioner: await createCaptioner({ model, adapters, worker }),
        uses: new Set(),
      });
    }
  }

  return {
    async use(models, signal, work) {
      uses = uses.filter(({ aborted }) => !aborted);
      if (uses.length >= MOST_USES)
        throw new TryError('other pictures are waiting; try again in a moment', 429);
      uses.push(signal);
      const begun = last.then(async () => {
        signal.throwIfAborted();
        await replace(models);
        const used = models.map(({ model }) => open.find((one) => one.model === model)!);
        const result = work(used.map(({ captioner }) => captioner));
        for (const one of used) one.uses.add(result);
        const end = () => used.forEach((one) => one.uses.delete(result));
        result.then(end, end);
        return { result }; // the next one does not wait for it
      });
      last = begun.catch(() => undefined);
      try {
        const { result } = await begun;
        return await result;
      } finally {
        uses = uses.filter((one) => one !== signal);
      }
    },
    async close() {
      const end = () => Promise.all(open.map(({ captioner }) => captioner.close({ drain: false })));
      await end();
      await last; // a model that is being loaded
      await end();
    },
  };
}

/** The folders of each model and of the adapters on it, with their versions. */
function wantedFor(models: readonly TriedModel[]): Map<string, Map<string, string>> {
  const wanted = new Map<string, Map<string, string>>();
  for (const { model, version, adapter, adapterVersion } of models) {
    const versions = wanted.get(model) ?? new Map([[model, version]]);
    if (adapter !== undefined) versions.set(adapter, adapterVersion!);
    wanted.set(model, versions);
  }
  return wanted;
}

const isSubset = (some: ReadonlyMap<string, string> | undefined, all: ReadonlyMap<string, string>) =>
  some !== undefined && [...some].every(([folder, version]) => all.get(folder) === version);
