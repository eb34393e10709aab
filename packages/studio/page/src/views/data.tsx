/** A data set: its rows, what is wrong with them, and its columns. */
import { useEffect, useState } from 'preact/hooks';
import type { DataPage, DataPlace, DataRow, Layout, Listing } from '../../../src/api';
import { Failure, Field, useAction } from '../parts/parts';
import { PathPicker } from '../parts/picker';
import { useKept } from '../place';
import { address, post, useLoaded } from '../server';
import { ColumnsPart } from './columns';
import { ProblemsPart } from './problems';

const NOWHERE: DataPlace = { path: '' };
const PAGE = 24;
const MOST_FOUND = 12;
const PARTS = ['Rows', 'Problems', 'Columns'] as const;

export const placeQuery = (place: DataPlace) => ({ ...place }) as Record<string, string | undefined>;

export function DataView() {
  const [place, setPlace] = useKept<DataPlace>('data', NOWHERE);
  const [path, setPath] = useState(place.path);
  const [part, setPart] = useState<(typeof PARTS)[number]>('Rows');
  const [search, setSearch] = useState('');
  const [split, setSplit] = useState('');
  const [from, setFrom] = useState(0);
  const query = { ...placeQuery(place), search, split, from };
  const rows = useLoaded<DataPage>(place.path === '' ? undefined : address('data', query));
  // a search starts at its first page
  useEffect(() => setFrom(0), [search, split, place.path]);
  const show = (wanted: string) => {
    setPlace(wanted === place.path ? place : { path: wanted });
    rows.again();
  };
  const open = (event: Event) => {
    event.preventDefault();
    show(path);
  };
  const find = (source: string) => {
    setSearch(source.slice(source.lastIndexOf('/') + 1));
    setPart('Rows');
  };
  return (
    <>
      <h1>Data</h1>
      <form class="row" onSubmit={open}>
        <PathPicker
          label="Data set"
          hint="a folder or file with pictures and texts, in any form that blip2 reads"
          value={path}
          wanted="data"
          onChange={setPath}
        />
        <button class="main">Open</button>
      </form>
      <Failure text={rows.error} />
      {place.path === '' && <Found open={(wanted) => (setPath(wanted), show(wanted))} />}
      {rows.value && <Splits data={rows.value} />}
      {(rows.value ?? rows.error) !== undefined && (
        <>
          <div class="tabs" role="group" aria-label="Parts of the data">
            {PARTS.map((name) => (
              <button key={name} aria-pressed={part === name} onClick={() => setPart(name)}>
                {name}
              </button>
            ))}
          </div>
          {part === 'Rows' && rows.value && (
            <RowsPart
              place={place}
              data={rows.value}
              {...{ search, setSearch, split, setSplit, from, setFrom }}
              changed={rows.again}
            />
          )}
          {part === 'Problems' && (
            <ProblemsPart place={place} rows={rows.value?.problems ?? []} find={find} />
          )}
          {part === 'Columns' && (
            <ColumnsPart
              place={place}
              change={(layout: Layout) => setPlace({ path: place.path, ...layout })}
            />
          )}
        </>
      )}
    </>
  );
}

/** Data in the first folder, for those who have not chosen any yet. */
function Found({ open }: { open: (path: string) => void }) {
  const { value } = useLoaded<Listing>(address('files', { path: '.' }));
  const data = value?.entries.filter(({ kind }) => kind === 'data') ?? [];
  if (data.length === 0) return null;
  return (
    <section>
      <h2>Found here</h2>
      <ul class="found">
        {data.slice(0, MOST_FOUND).map(({ name, path }) => (
          <li key={path}>
            <button onClick={() => open(path)}>
              Open <bdi>{name}</bdi>
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Splits({ data }: { data: DataPage }) {
  const count = (n: number) => n.toLocaleString('en');
  return (
    <p class="soft">
      {data.splits.map(({ name, rows, bad }, i) => (
        <span key={name}>
          {i > 0 && ' · '}
          {name ?? 'all'}: {count(rows)} rows
          {bad > 0 && <b class="bad-text">, {count(bad)} cannot be used</b>}
        </span>
      ))}
    </p>
  );
}

interface RowsProps {
  place: DataPlace;
  data: DataPage;
  search: string;
  setSearch: (text: string) => void;
  split: string;
  setSplit: (name: string) => void;
  from: number;
  setFrom: (from: number) => void;
  changed: () => void;
}

function RowsPart({ place, data, search, setSearch, split, setSplit, from, setFrom, changed }: RowsProps) {
  const names = data.splits.flatMap(({ name }) => name ?? []);
  const last = Math.min(from + PAGE, data.found);
  return (
    <>
      <div class="row">
        <Field label="Search texts and places">
          <input type="search" value={search} onInput={(e) => setSearch(e.currentTarget.value)} />
        </Field>
        {names.length > 1 && (
          <Field label="Split">
            <select value={split} onChange={(e) => setSplit(e.currentTarget.value)}>
              <option value="">all</option>
              {names.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </Field>
        )}
      </div>
      <p class="row between" role="status">
        <span>
          {data.found === 0 ? 'No rows' : `Rows ${from + 1} to ${last} of ${data.found.toLocaleString('en')}`}
        </span>
        <span>
          <button disabled={from === 0} onClick={() => setFrom(Math.max(0, from - PAGE))}>
            Previous
          </button>{' '}
          <button disabled={last >= data.found} onClick={() => setFrom(from + PAGE)}>
            Next
          </button>
        </span>
      </p>
      <ul class="shots">
        {data.rows.map((row) => (
          <li key={row.index}>
            <img
              src={address('data/picture', { ...placeQuery(place), index: row.index, side: 256 })}
              alt={row.texts[0]?.text ?? ''}
              loading="lazy"
            />
            <dl>
              {row.texts.map((text) => (
                <RowText key={text.role + text.index} {...{ place, row, text, changed }} />
              ))}
            </dl>
            <p class="file">
              <bdi>{row.place}</bdi>
              {row.split && ` · ${row.split}`}
            </p>
          </li>
        ))}
      </ul>
    </>
  );
}

/** Stays the same function, so that it is called once for each box. */
const focus = (box: HTMLTextAreaElement | null): void => box?.focus();

interface TextProps {
  place: DataPlace;
  row: DataRow;
  text: DataRow['texts'][number];
  changed: () => void;
}

function RowText({ place, row, text, changed }: TextProps) {
  const [draft, setDraft] = useState<string>();
  const { busy, error, act } = useAction();
  const save = () =>
    act(async () => {
      const { source } = row;
      await post('data/text', {
        ...place,
        source,
        role: text.role,
        index: text.index,
        from: text.text,
        to: draft,
      });
      setDraft(undefined);
      changed();
    });
  const name = `${text.role} of ${row.place}`;
  return (
    <div>
      <dt>{text.role}</dt>
      {draft === undefined ? (
        <dd dir="auto">
          {text.text}{' '}
          <button class="small" aria-label={`Edit the ${name}`} onClick={() => setDraft(text.text)}>
            Edit
          </button>
        </dd>
      ) : (
        <dd>
          <textarea
            aria-label={name}
            value={draft}
            rows={3}
            ref={focus}
            onInput={(e) => setDraft(e.currentTarget.value)}
            onKeyDown={(e) => e.key === 'Escape' && setDraft(undefined)}
          />
          <button disabled={busy || draft.trim() === ''} onClick={save}>
            Save
          </button>{' '}
          <button onClick={() => setDraft(undefined)}>Cancel</button>
          <Failure text={error} />
        </dd>
      )}
    </div>
  );
}
