/** One run: its curves and sample texts as they come, stop and go on, and its report when it has ended. */
import { useState } from 'preact/hooks';
import type { LiveSample, MetricRow, RunEvent, RunState } from '../../../src/api';
import { Chart } from '../parts/chart';
import type { LiveChart } from '../parts/chart';
import { Frame } from '../parts/frame';
import { Failure, useAction } from '../parts/parts';
import { address, post, useEvents } from '../server';

const CHARTS: LiveChart[] = [
  {
    title: 'Loss per token',
    axis: 'log',
    wide: true,
    series: [
      { name: 'training', field: 'loss', look: 'line' },
      { name: 'validation', field: 'eval_loss', look: 'marks' },
    ],
  },
  {
    title: 'Exact match',
    axis: 'zero',
    digits: 1,
    suffix: ' %',
    series: [{ name: 'whole text', field: 'eval_exact', look: 'marks', factor: 100 }],
  },
  {
    title: 'Accuracy',
    axis: 'zero',
    digits: 1,
    suffix: ' %',
    series: [{ name: 'all questions', field: 'eval_accuracy', look: 'marks', factor: 100 }],
  },
  {
    title: 'CIDEr-D',
    axis: 'zero',
    digits: 1,
    series: [{ name: 'validation', field: 'eval_cider_d', look: 'marks', factor: 100 }],
  },
  { title: 'Learning rate', axis: 'zero', series: [{ name: 'rate', field: 'learning_rate', look: 'line' }] },
  { title: 'Speed', axis: 'zero', series: [{ name: 'images/s', field: 'images_per_second', look: 'line' }] },
];

interface Live {
  state?: RunState;
  metrics: MetricRow[];
  samples: LiveSample[];
  log: string[];
}
const NOTHING: Live = { metrics: [], samples: [], log: [] };
const MOST_LINES = 300;

function next(live: Live, event: RunEvent): Live {
  switch (event.type) {
    case 'restart':
      return NOTHING;
    case 'state':
      return { ...live, state: event.state };
    case 'metrics':
      return { ...live, metrics: [...live.metrics, ...event.rows] };
    case 'samples':
      return { ...live, samples: [...live.samples, ...event.rows] };
    case 'log':
      return { ...live, log: [...live.log, ...event.lines].slice(-MOST_LINES) };
  }
}

const STATES: Record<RunState, string> = {
  running: 'is running',
  stopping: 'saves a checkpoint and stops',
  stopped: 'has stopped',
  failed: 'has failed',
  finished: 'has finished',
};

export function RunView({ name }: { name: string }) {
  const [live, setLive] = useState(NOTHING);
  const { busy, error, act } = useAction();
  const at = `runs/${encodeURIComponent(name)}`;
  useEvents<RunEvent>(`/api/${at}/events`, (event) => setLive((old) => next(old, event)));
  const { state, metrics, samples, log } = live;
  const rows = latest(metrics);
  const last = rows.findLast(({ loss }) => loss !== undefined);
  const line = log.findLast((text) => text.trim() !== '');
  const onGoing = state === 'running' || state === 'stopping';
  return (
    <>
      <h1>{name}</h1>
      <p class="row">
        <b role="status">{state ? `This run ${STATES[state]}.` : 'Loading …'}</b>
        {onGoing && (
          <button
            class="main"
            disabled={busy || state === 'stopping'}
            onClick={() => act(() => post(`${at}/stop`))}
          >
            Stop and save
          </button>
        )}
        {(state === 'stopped' || state === 'failed') && (
          <button class="main" disabled={busy} onClick={() => act(() => post(`${at}/resume`))}>
            Go on
          </button>
        )}
      </p>
      <Failure text={error} />
      {state === 'failed' && <Failure text={log.slice(-8).join('\n')} />}
      {last && (
        <p class="soft">
          Step {last.step.toLocaleString('en')}, loss {last.loss!.toPrecision(3)}
          {typeof last.epoch === 'number' && `, epoch ${last.epoch.toFixed(2)}`}
        </p>
      )}
      {onGoing && line && (
        <p class="progress">
          <span class="spin" aria-hidden="true" /> <span class="mono">{line}</span>
        </p>
      )}
      {state === 'finished' && (
        <section>
          <h2>Report</h2>
          <Frame title={`Report of ${name}`} src={`/api/${at}/report`} />
        </section>
      )}
      {samples.length > 0 && state !== 'finished' && <Samples name={name} samples={samples} />}
      {state !== 'finished' && (
        <div class="charts">
          {CHARTS.map((chart) => (
            <Chart key={chart.title} chart={chart} rows={rows} />
          ))}
        </div>
      )}
      {log.length > 0 && (
        <details>
          <summary>What the command printed</summary>
          <pre tabIndex={0}>{log.join('\n')}</pre>
        </details>
      )}
    </>
  );
}

/** In order of their steps; of rows that a resumed run has written again, the later ones. */
function latest(metrics: MetricRow[]): MetricRow[] {
  const kinds = new Map(metrics.map((row) => [`${row.step} ${Object.keys(row).join()}`, row]));
  return [...kinds.values()].sort((a, b) => a.step - b.step);
}

function Samples({ name, samples }: { name: string; samples: LiveSample[] }) {
  const cards = new Map<string, LiveSample[]>();
  for (const sample of samples) {
    const key = JSON.stringify([sample.picture, sample.question]);
    cards.set(key, [...(cards.get(key) ?? []).filter(({ step }) => step !== sample.step), sample]);
  }
  return (
    <section>
      <h2>What it writes now</h2>
      <ul class="shots live-samples">
        {[...cards].map(([key, texts]) => (
          <SampleCard key={key} name={name} texts={texts.sort((a, b) => b.step - a.step)} />
        ))}
      </ul>
    </section>
  );
}

function SampleCard({ name, texts }: { name: string; texts: LiveSample[] }) {
  const [{ picture, question, reference, image }] = texts;
  return (
    <li>
      <img
        src={address(`runs/${encodeURIComponent(name)}/picture`, { index: picture, side: 256 })}
        alt={reference}
      />
      <dl>
        {question !== undefined && <Entry name="question" text={question} />}
        <Entry name="expected" text={reference} />
        {texts.map(({ step, text }) => (
          <Entry
            key={step}
            name={step === 0 ? 'before training' : `step ${step}`}
            text={text}
            right={text.trim() === reference.trim()}
          />
        ))}
      </dl>
      <p class="file">
        <bdi>{image}</bdi>
      </p>
    </li>
  );
}

const Entry = ({ name, text, right }: { name: string; text: string; right?: boolean }) => (
  <div>
    <dt>{name}</dt>
    <dd dir="auto" class={right ? 'right' : ''}>
      {right && <span class="hidden">right: </span>}
      {text || '(nothing)'}
    </dd>
  </div>
);
