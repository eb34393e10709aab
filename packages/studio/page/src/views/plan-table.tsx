/** The presets of a plan: a table with what changed since the one before, and what each trains. */
import type { PlanRow, PlanTable } from '../../../src/api';
import { Table } from '../parts/parts';

interface Props {
  now: PlanTable;
  before: PlanTable | undefined;
  preset: string;
  choose: (preset: string) => void;
}

export function PresetTable({ now, before, preset, choose }: Props) {
  const columns = Object.keys(now.rows[0]?.cells ?? {});
  const names = now.rows.map(({ preset: of }) => of);
  return (
    <section role="status">
      <h2>Presets</h2>
      {now.about.map((line) => (
        <p key={line} class="soft">
          {line}
        </p>
      ))}
      <Table label="Presets" columns={['preset', ...columns]}>
        {now.rows.map((row, i) => (
          <Row
            key={row.name}
            row={row}
            columns={columns}
            old={before?.rows.find(({ name }) => name === row.name)?.cells}
            chosen={preset === row.preset}
            // of rows with one preset, such as LoRA in the upper layers, the first can be chosen here
            choose={names.indexOf(row.preset) === i ? () => choose(row.preset) : undefined}
          />
        ))}
      </Table>
      <Facts table={now} />
    </section>
  );
}

interface RowProps {
  row: PlanRow;
  columns: readonly string[];
  /** cells of the plan before */
  old: PlanRow['cells'] | undefined;
  chosen: boolean;
  choose: (() => void) | undefined;
}

const Row = ({ row, columns, old, chosen, choose }: RowProps) => (
  <tr role="row" class={row.fits === 'no' ? 'weak-row' : ''}>
    <th role="rowheader" scope="row">
      <label>
        {choose && <input type="radio" name="preset" checked={chosen} onChange={choose} />} {row.name}
        {row.recommended !== undefined && <b class="tag"> recommended</b>}
      </label>
    </th>
    {columns.map((name) => (
      <td key={name} role="cell" data-label={name}>
        {old && old[name] !== row.cells[name] && (
          <del>
            <span class="hidden">before: </span>
            {old[name]}
          </del>
        )}{' '}
        {row.cells[name]}
      </td>
    ))}
  </tr>
);

const Facts = ({ table: { rows, left_out } }: { table: PlanTable }) => (
  <dl class="facts">
    {rows.map(({ name, trains, when, recommended, notes }) => (
      <div key={name}>
        <dt>{name}</dt>
        <dd>
          Trains {trains}. For {when}. {recommended && <b>Recommended: {recommended}.</b>}
          {notes.map((note) => (
            <p key={note} class="note">
              ! {note}
            </p>
          ))}
        </dd>
      </div>
    ))}
    {left_out.map(({ preset: name, why }) => (
      <div key={name}>
        <dt>{name}</dt>
        <dd>Cannot have these settings: {why}</dd>
      </div>
    ))}
  </dl>
);
