/** The first rows of a data set as its file has them, and which of its columns have which role. */
import type { Role } from './columns';
import { ROLES, rolesOf } from './columns';
import { show } from './errors';
import { placeOf } from './image-name';
import type { Layout } from './layout';
import { readRows } from './read-rows';

export interface DataPreview {
  columns: string[];
  /** the column of each role, as found or given */
  roles: Partial<Record<Role, string>>;
  /** values as short texts, by column */
  rows: Record<string, string>[];
}

/** @param most number of rows. @throws DataError when the path is not a data set */
export async function previewData(path: string, layout: Layout = {}, most = 5): Promise<DataPreview> {
  const rows = (await readRows(path, layout)).rows.slice(0, most).map(({ row }) => row.given ?? row.values);
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const found = rows.length > 0 ? rolesOf(rows[0], layout) : {};
  const roles = Object.fromEntries(ROLES.flatMap((role) => (found[role] ? [[role, found[role]]] : [])));
  const text = (value: unknown) => (typeof value === 'string' ? value.slice(0, 200) : show(value));
  return {
    columns,
    roles,
    rows: rows.map((row) =>
      Object.fromEntries(Object.entries(row).map(([name, value]) => [name, text(value)])),
    ),
  };
}

/** The file that an image of this name is in: itself, or the larger file that contains it. */
export const fileOfImage = (image: string): string => placeOf(image)?.[1] ?? image;
