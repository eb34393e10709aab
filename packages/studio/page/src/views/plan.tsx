/** What each preset takes, what changes with a setting, and the start of a run. */
import { useState } from 'preact/hooks';
import type { ChosenSettings, DataPlace, PlanTable, Settings } from '../../../src/api';
import { Failure, Field, Progress, useAction, useJob } from '../parts/parts';
import { PathPicker } from '../parts/picker';
import { go, useKept, without } from '../place';
import { post } from '../server';
import { PresetTable } from './plan-table';

/** Settings of the form, as typed; an empty one is left to be chosen. */
type Typed = Record<string, string>;

const NUMBERS = [
  ['num_train_epochs', 'Epochs'],
  ['per_device_train_batch_size', 'Batch size'],
  ['learning_rate', 'Learning rate'],
  ['max_steps', 'Most steps'],
  ['seed', 'Seed'],
] as const;
const CHOICES = [
  ['task', 'Task', ['caption', 'vqa']],
  ['precision', 'Precision', ['float32', 'bfloat16', 'int8', 'int4']],
] as const;

/** As the server expects them: numbers as numbers. */
function settingsOf(typed: Typed, model: string, { path, ...layout }: DataPlace): Settings {
  const numbers: readonly string[] = NUMBERS.map(([name]) => name);
  const given = Object.entries(typed).filter(
    ([name, value]) => value !== '' && name !== 'memory' && name !== 'name',
  );
  return {
    ...Object.fromEntries(Object.entries(layout).flatMap(([k, v]) => (v ? [[k, v]] : []))),
    ...Object.fromEntries(
      // what is no number is sent as it is, and refused by name
      given.map(([name, value]) => [
        name,
        numbers.includes(name) && Number.isFinite(Number(value)) ? Number(value) : value,
      ]),
    ),
    model,
    data: path,
  };
}

export function PlanView() {
  const [model, setModel] = useKept('model', '');
  const [place, setPlace] = useKept<DataPlace>('data', { path: '' });
  const [typed, setTyped] = useKept<Typed>('settings', {});
  const [plans, setPlans] = useState<{ now?: PlanTable; before?: PlanTable }>({});
  const [chosen, setChosen] = useState<ChosenSettings>();
  const job = useJob<PlanTable>((now) => {
    setPlans(({ now: before }) => ({ now, before }));
    const best = now.rows.find(({ recommended }) => recommended !== undefined);
    if (!typed.preset && best) set('preset', best.preset);
  });
  const { busy, error, act } = useAction();
  const set = (name: string, value: string) => setTyped({ ...typed, [name]: value });
  const plan = (event: Event) => {
    event.preventDefault();
    // all presets, whichever is chosen
    job.start({
      kind: 'plan',
      settings: settingsOf(without(typed, 'preset'), model, place),
      memory: typed.memory,
    });
  };
  const look = () => act(async () => setChosen(await post('settings', settingsOf(typed, model, place))));
  const start = () =>
    act(async () => {
      const name = typed.name || `${typed.preset || 'run'}-${new Date().toISOString().slice(0, 10)}`;
      const made = await post<{ name: string }>('runs', { name, settings: settingsOf(typed, model, place) });
      go(`/runs/${encodeURIComponent(made.name)}`);
    });
  const ready = model !== '' && place.path !== '';
  return (
    <>
      <h1>Plan</h1>
      <form onSubmit={plan}>
        <div class="row">
          <PathPicker
            label="Model"
            hint="a checkpoint folder, or the name of one that blip2 pull has fetched"
            value={model}
            wanted="model"
            onChange={setModel}
          />
          <PathPicker
            label="Data set"
            value={place.path}
            wanted="data"
            onChange={(path) => setPlace(path === place.path ? place : { path })}
          />
        </div>
        <SettingFields typed={typed} set={set} />
        <p class="row">
          <button class="main" disabled={!ready || job.running}>
            Plan
          </button>
          <button type="button" disabled={!ready || busy} onClick={look}>
            Show what would be chosen
          </button>
        </p>
      </form>
      <Progress job={job} />
      <Failure text={job.error ?? error} />
      {plans.now && (
        <PresetTable
          now={plans.now}
          before={plans.before}
          preset={typed.preset ?? ''}
          choose={(name) => set('preset', name)}
        />
      )}
      {chosen && <Chosen chosen={chosen} />}
      <StartPart typed={typed} set={set} disabled={!ready || busy} start={start} />
    </>
  );
}

interface SettingsProps {
  typed: Typed;
  set: (name: string, value: string) => void;
}

const SettingFields = ({ typed, set }: SettingsProps) => (
  <div class="row">
    {NUMBERS.map(([name, label]) => (
      <Field key={name} label={label}>
        <input
          class="number"
          inputMode="decimal"
          placeholder="chosen"
          value={typed[name] ?? ''}
          onInput={(e) => set(name, e.currentTarget.value)}
        />
      </Field>
    ))}
    {CHOICES.map(([name, label, values]) => (
      <Field key={name} label={label}>
        <select value={typed[name] ?? ''} onChange={(e) => set(name, e.currentTarget.value)}>
          <option value="">chosen</option>
          {values.map((value) => (
            <option key={value}>{value}</option>
          ))}
        </select>
      </Field>
    ))}
    <Field label="Memory">
      <input
        class="number"
        placeholder="this machine"
        value={typed.memory ?? ''}
        onInput={(e) => set('memory', e.currentTarget.value)}
      />
    </Field>
  </div>
);

const StartPart = ({
  typed,
  set,
  disabled,
  start,
}: SettingsProps & { disabled: boolean; start: () => void }) => (
  <section>
    <h2>Start</h2>
    <p class="soft">
      Trains the preset <b>{typed.preset || 'lora'}</b> with the settings above. The server stays free: the
      run is a process of its own.
    </p>
    <p class="row">
      <Field label="Name of the run">
        <input
          value={typed.name ?? ''}
          placeholder="preset and date"
          onInput={(e) => set('name', e.currentTarget.value)}
        />
      </Field>
      <button class="main" disabled={disabled} onClick={start}>
        Start the run
      </button>
    </p>
  </section>
);

function Chosen({ chosen: { choices, yaml } }: { chosen: ChosenSettings }) {
  return (
    <section role="status">
      <h2>Chosen for this data</h2>
      <dl class="facts">
        {choices.map(({ name, what, option }) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>
              {what} <span class="mono soft">{option}</span>
            </dd>
          </div>
        ))}
      </dl>
      <details>
        <summary>All settings, as config.yaml</summary>
        <pre tabIndex={0}>
          <code>{yaml}</code>
        </pre>
      </details>
    </section>
  );
}
