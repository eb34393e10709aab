/** What is wrong with a data set: at once what its texts show, and on request what every picture shows. */
import { useState } from 'preact/hooks';
import type { DataPage, DataPlace, DataReport } from '../../../src/api';
import { Failure, Progress, useJob } from '../parts/parts';
import { kept } from '../place';

interface Props {
  place: DataPlace;
  rows: DataPage['problems'];
  /** shows the rows of a source */
  find: (source: string) => void;
}

interface Finding {
  source: string;
  text: string;
}

export function ProblemsPart({ place, rows, find }: Props) {
  const [report, setReport] = useState<DataReport>();
  const [withModel, setWithModel] = useState(false);
  const job = useJob<DataReport>(setReport);
  const model = kept<string>('model') ?? '';
  return (
    <section>
      <div class="row">
        <button
          class="main"
          disabled={job.running}
          onClick={() => job.start({ kind: 'check', data: place, model: withModel ? model : undefined })}
        >
          Check every picture
        </button>
        {model !== '' && (
          <label>
            <input
              type="checkbox"
              checked={withModel}
              onChange={(e) => setWithModel(e.currentTarget.checked)}
            />{' '}
            count tokens with <span class="mono">{model}</span>
          </label>
        )}
      </div>
      <Progress job={job} />
      <Failure text={job.error} />
      {report ? (
        <Report report={report} find={find} />
      ) : (
        <Findings title="Rows that cannot be used" kind="bad" found={rows} find={find} />
      )}
      {!report && rows.length === 0 && (
        <p>No row has a problem with its texts. Pictures have not been checked.</p>
      )}
    </section>
  );
}

function Report({ report, find }: { report: DataReport; find: Props['find'] }) {
  const { bad_rows, leaks, duplicates, suspicious, odd, commonest, usable, unusable } = report;
  const plain = (list: { source: string; what: string }[]) =>
    list.map(({ source, what }) => ({ source, text: what }));
  return (
    <div role="status">
      <h2>{usable ? 'All rows can be used' : `${unusable} rows cannot be used`}</h2>
      <Findings
        title="Rows that cannot be used"
        kind="bad"
        find={find}
        found={bad_rows.map(({ source, expected, found }) => ({
          source,
          text: `expected ${expected}, found ${found}`,
        }))}
      />
      <Findings
        title="Pictures in more than one split"
        kind="bad"
        find={find}
        found={leaks.map(({ splits, sources }) => ({
          source: sources[0],
          text: `the same picture is in ${splits.join(' and ')}`,
        }))}
      />
      <Findings
        title="Equal pictures"
        find={find}
        found={duplicates.map((group) => ({
          source: group[0].source,
          text: `${group.length} files have this content`,
        }))}
      />
      <Findings title="Suspicious texts" find={find} found={plain(suspicious)} />
      <Findings title="Unusual pictures" find={find} found={plain(odd)} />
      <Findings
        title="Texts on several rows"
        find={find}
        found={commonest.map(({ text, rows }) => ({ source: '', text: `${rows} × ${text}` }))}
      />
    </div>
  );
}

const MOST = 100;

function Findings({
  title,
  found,
  kind = '',
  find,
}: {
  title: string;
  found: Finding[];
  kind?: string;
  find: Props['find'];
}) {
  if (found.length === 0) return null;
  return (
    <details open={kind === 'bad'} class={kind}>
      <summary>
        {title}: {found.length.toLocaleString('en')}
      </summary>
      <ul class="findings">
        {found.slice(0, MOST).map(({ source, text }, i) => (
          <li key={i}>
            {source !== '' && (
              <button class="small" onClick={() => find(source)}>
                <bdi>{source.slice(source.lastIndexOf('/') + 1)}</bdi>
              </button>
            )}{' '}
            <span dir="auto">{text}</span>
          </li>
        ))}
        {found.length > MOST && <li class="soft">and {found.length - MOST} more</li>}
      </ul>
    </details>
  );
}
