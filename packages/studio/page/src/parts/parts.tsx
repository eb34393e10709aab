/** Small parts of several views. */
import type { ComponentChildren } from 'preact';
import { useRef, useState } from 'preact/hooks';
import type { JobEvent, JobRequest } from '../../../src/api';
import { post, remove, useEvents } from '../server';

/** What went wrong, announced when it appears. */
export const Failure = ({ text }: { text: string | undefined }) =>
  text === undefined ? null : (
    <p class="failure" role="alert">
      {text}
    </p>
  );

export function Field({
  label,
  hint,
  children,
}: {
  label: string;
  hint?: string;
  children: ComponentChildren;
}) {
  return (
    <label class="field">
      <span>{label}</span>
      {children}
      {hint && <small class="soft">{hint}</small>}
    </label>
  );
}

interface TableProps {
  label: string;
  columns: readonly string[];
  /** its rows */
  children: ComponentChildren;
}

/** A table that scrolls where it is too wide. On a phone its rows are blocks, so roles are given. */
export const Table = ({ label, columns, children }: TableProps) => (
  <div class="wide" tabIndex={0} role="region" aria-label={label}>
    <table role="table">
      <thead role="rowgroup">
        <tr role="row">
          {columns.map((name) => (
            <th key={name} role="columnheader" scope="col">
              {name}
            </th>
          ))}
        </tr>
      </thead>
      <tbody role="rowgroup">{children}</tbody>
    </table>
  </div>
);

/** Runs an action of a button: disabled meanwhile, and its error. */
export function useAction(): {
  busy: boolean;
  error: string | undefined;
  act: (action: () => Promise<unknown>) => void;
} {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string>();
  const act = (action: () => Promise<unknown>) => {
    setBusy(true);
    setError(undefined);
    action()
      .catch((problem: Error) => setError(problem.message))
      .finally(() => setBusy(false));
  };
  return { busy, error, act };
}

export interface JobState {
  running: boolean;
  line: string;
  error: string | undefined;
  start(request: JobRequest): void;
  stop(): void;
}

/** A check or plan: its last line while it runs, then `done` with its result. */
export function useJob<T>(done: (result: T) => void): JobState {
  const [id, setId] = useState<string>();
  const [running, setRunning] = useState(false);
  const [line, setLine] = useState('');
  const { error, act } = useAction();
  const [failed, setFailed] = useState<string>();
  useEvents<JobEvent>(id && `/api/jobs/${id}/events`, (event) => {
    if (event.type === 'log') {
      setLine(event.lines.at(-1)!);
      return false;
    }
    setRunning(false);
    setId(undefined);
    if (event.ok) done(event.result as T);
    else setFailed(event.message);
    return true;
  });
  const start = (request: JobRequest) =>
    act(async () => {
      setFailed(undefined);
      setLine('');
      setId((await post<{ id: string }>('jobs', request)).id);
      setRunning(true);
    });
  return { running, line, error: error ?? failed, start, stop: () => id && void remove(`jobs/${id}`) };
}

/** The last line of a job, and a button that stops it. */
export const Progress = ({ job }: { job: JobState }) =>
  job.running ? (
    <p class="progress" role="status">
      <span class="spin" aria-hidden="true" /> <span class="mono">{job.line || 'starting'}</span>{' '}
      <button onClick={job.stop}>Stop</button>
    </p>
  ) : null;

/** A dialog that is opened by setting `open`. */
export function useDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  return { dialog, show: () => dialog.current?.showModal(), close: () => dialog.current?.close() };
}
