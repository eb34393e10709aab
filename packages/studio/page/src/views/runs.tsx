/** All runs, and which of them to compare. */
import { useState } from 'preact/hooks';
import type { RunSummary } from '../../../src/api';
import { Failure, Table } from '../parts/parts';
import { go } from '../place';
import { useLoaded } from '../server';

const COLUMNS = ['state', 'preset', 'data', 'steps', 'score', 'verdict'];

export function RunsView() {
  const { value: runs, error, again } = useLoaded<RunSummary[]>('/api/runs');
  const [picked, setPicked] = useState<string[]>([]);
  const toggle = (name: string) =>
    setPicked(picked.includes(name) ? picked.filter((one) => one !== name) : [...picked, name]);
  const compare = () => go(`/compare?${picked.map((name) => `run=${encodeURIComponent(name)}`).join('&')}`);
  return (
    <>
      <h1>Runs</h1>
      <Failure text={error} />
      {runs?.length === 0 && (
        <p>
          There is no run yet. <a href="#/plan">Plan one</a>.
        </p>
      )}
      {runs && runs.length > 0 && (
        <>
          <p class="row">
            <button class="main" disabled={picked.length < 2} onClick={compare}>
              Compare {picked.length > 1 ? `${picked.length} runs` : 'two or more'}
            </button>
            <button onClick={again}>Load again</button>
          </p>
          <Table label="Runs" columns={['run', ...COLUMNS]}>
            {runs.map((run) => (
              <Row
                key={run.name}
                run={run}
                picked={picked.includes(run.name)}
                toggle={() => toggle(run.name)}
              />
            ))}
          </Table>
        </>
      )}
    </>
  );
}

function Row({ run, picked, toggle }: { run: RunSummary; picked: boolean; toggle: () => void }) {
  const cells = [run.state, run.preset, run.data, run.steps?.toLocaleString('en'), run.score, run.outcome];
  return (
    <tr role="row">
      <th role="rowheader" scope="row">
        <input type="checkbox" aria-label={`compare ${run.name}`} checked={picked} onChange={toggle} />{' '}
        <a href={`#/runs/${encodeURIComponent(run.name)}`}>{run.name}</a>
        {run.problem && <p class="note bad-text">{run.problem}</p>}
      </th>
      {cells.map((cell, i) => (
        <td key={i} role="cell" data-label={COLUMNS[i]}>
          {cell ?? '–'}
        </td>
      ))}
    </tr>
  );
}
