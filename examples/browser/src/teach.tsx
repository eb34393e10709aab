/** Training: settings, the loss, and the files of the adapter. */
import { useEffect, useState } from 'preact/hooks';
import { Curve } from './curve';
import type { FitSettings } from './fit';
import { runLine } from './lines';
import type { Fitted } from './messages';
import type { Picture } from './use-pictures';
import type { Run, RunControl } from './use-run';

const PRESETS: Record<FitSettings['preset'], string> = {
  'lora+qformer': 'LoRA and Q-Former',
  lora: 'LoRA in the text model',
  'qformer-projection': 'Q-Former',
  qformer: 'Q-Former without its queries and projection',
};
const OFFERED = ['lora+qformer', 'lora', 'qformer-projection'] as const;

interface TeachProps {
  ready: boolean;
  list: readonly Picture[];
  run: RunControl;
}

export function Teach({ ready, list, run: { run, start, stop } }: TeachProps) {
  const [preset, setPreset] = useState<FitSettings['preset']>('lora+qformer');
  const [steps, setSteps] = useState(60);
  const [learning_rate, setRate] = useState(1e-3);
  const rows = list
    .filter(({ taught, error, base }) => taught.trim() !== '' && error === undefined && base !== undefined)
    .map(({ name, taught }) => ({ image: name, caption: taught }));
  const settings: FitSettings = { preset, steps, learning_rate, batch_size: 8, seed: 0 };
  const watched = list.filter(({ base }) => base !== undefined).map(({ name }) => name);
  const valid =
    Number.isInteger(steps) && steps >= 1 && steps <= 2000 && learning_rate > 0 && learning_rate <= 0.1;
  const running = run?.running ?? false;
  return (
    <section aria-labelledby="teach">
      <h2 id="teach">Teach</h2>
      <form
        class="row"
        onSubmit={(event) => {
          event.preventDefault();
          if (ready && !running && valid && rows.length > 0) start({ rows, watched, settings });
        }}
      >
        <label>
          What trains
          <select
            value={preset}
            onChange={({ currentTarget }) => setPreset(currentTarget.value as typeof preset)}
          >
            {OFFERED.map((name) => (
              <option key={name} value={name}>
                {PRESETS[name]}
              </option>
            ))}
          </select>
        </label>
        <label>
          Steps
          <input
            type="number"
            min={1}
            max={2000}
            value={steps}
            onInput={({ currentTarget }) => setSteps(currentTarget.valueAsNumber)}
          />
        </label>
        <label>
          Learning rate
          <input
            type="number"
            min={0.00001}
            max={0.1}
            step="any"
            value={learning_rate}
            onInput={({ currentTarget }) => setRate(currentTarget.valueAsNumber)}
          />
        </label>
        <button type="submit" class="main" disabled={!ready || running || !valid || rows.length === 0}>
          Train
        </button>
        <button type="button" disabled={!running} onClick={stop}>
          Stop
        </button>
      </form>
      <p class="soft">{hint(rows.length, valid)}</p>
      {run && <Course run={run} />}
    </section>
  );
}

function hint(rows: number, valid: boolean): string {
  if (!valid) return 'Steps: a whole number from 1 to 2000. Learning rate: a number up to 0.1.';
  if (rows === 0) return 'Write a caption under at least one picture.';
  return `${rows} captioned picture${rows === 1 ? '' : 's'}. Each run starts from the base again.`;
}

function Course({ run: { losses, steps, seconds, running, fitted, error } }: { run: Run }) {
  return (
    <div class="course">
      <Curve losses={losses} steps={steps} />
      <p role="status" aria-live="off">
        {losses.length > 0 ? runLine(losses.length, steps, seconds) : running ? 'The first step …' : ''}
      </p>
      {error !== undefined && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
      {fitted && <Result fitted={fitted} />}
    </div>
  );
}

function Result({ fitted }: { fitted: Fitted }) {
  const [links, setLinks] = useState<[name: string, url: string, bytes: number][]>([]);
  useEffect(() => {
    const made = [...fitted.files].map(([name, file]): (typeof links)[number] => [
      name,
      URL.createObjectURL(file),
      file.size,
    ]);
    setLinks(made);
    return () => made.forEach(([, url]) => URL.revokeObjectURL(url));
  }, [fitted]);
  return (
    <div role="status">
      <p>
        Done: {fitted.steps} steps in {fitted.seconds.toFixed(0)} s, {fitted.trainable.toLocaleString('en')}{' '}
        parameters trained. The captions under the pictures are those of the trained model. Its adapter, in
        PEFT's files:
      </p>
      <ul class="files">
        {links.map(([name, url, bytes]) => (
          <li key={name}>
            <a href={url} download={name}>
              {name}
            </a>{' '}
            ({bytes < 1e5 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`})
          </li>
        ))}
      </ul>
      <p>
        Put them into a folder, such as <code>adapter</code>. In Node:{' '}
        <code>npx blip2 caption picture.png --model models/blip2-emoji-mini --adapter adapter</code>
      </p>
    </div>
  );
}
