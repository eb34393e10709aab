/** Which column has the pictures and texts: chosen by buttons above each column. */
import type { DataPlace, DataPreview, Layout } from '../../../src/api';
import { Failure } from '../parts/parts';
import { without } from '../place';
import { address, useLoaded } from '../server';

const ROLES = ['image', 'caption', 'question', 'answer'] as const;
const NAMES = { image: 'picture', caption: 'caption', question: 'question', answer: 'answer' };

export function ColumnsPart({ place, change }: { place: DataPlace; change: (layout: Layout) => void }) {
  const { value: preview, error } = useLoaded<DataPreview>(
    address('data/preview', place as unknown as Record<string, string>),
  );
  const layout = without(place, 'path');
  const toggle = (role: (typeof ROLES)[number], column: string) => {
    const key = `${role}_column` as const;
    change({ ...layout, [key]: layout[key] === column ? undefined : column });
  };
  return (
    <section>
      <p class="soft">
        The first rows as the file has them. Choose what a column is, if it was not recognised; this is
        remembered for plans and runs too.
      </p>
      <Failure text={error} />
      {preview && (
        <div class="scroll" tabIndex={0} role="region" aria-label="Columns">
          <table class="columns">
            <thead>
              <tr>
                {preview.columns.map((column) => (
                  <th key={column} scope="col">
                    <bdi>{column}</bdi>
                    <span class="roles" role="group" aria-label={`${column} is the`}>
                      {ROLES.map((role) => (
                        <button
                          key={role}
                          class="small"
                          aria-pressed={preview.roles[role] === column}
                          onClick={() => toggle(role, column)}
                        >
                          {NAMES[role]}
                        </button>
                      ))}
                    </span>
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {preview.rows.map((row, i) => (
                <tr key={i}>
                  {preview.columns.map((column) => (
                    <td key={column} dir="auto">
                      {row[column] ?? ''}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {Object.values(layout).some((value) => value !== undefined) && (
        <p>
          <button onClick={() => change({})}>Forget my choices</button>
        </p>
      )}
    </section>
  );
}
