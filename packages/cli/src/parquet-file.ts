/** Rows of texts as a Parquet file, with the columns of the JSON rows. */
import { parquetWriteBuffer } from 'hyparquet-writer';

/** A row of a shard's file. */
export interface ShardRow {
  key: string;
  question?: string;
  error?: string;
  caption?: string;
  answer?: string;
}

/** @param text the column of the texts; a row has a text or an error */
export function parquetOf(rows: ShardRow[], text: 'caption' | 'answer'): Uint8Array {
  const column = (name: keyof ShardRow, nullable: boolean) => ({
    name,
    data: rows.map((row) => row[name] ?? null),
    type: 'STRING' as const,
    nullable,
  });
  const asked = rows.some(({ question }) => question !== undefined);
  const columns = ['key' as const, ...(asked ? ['question' as const] : []), text, 'error' as const];
  return new Uint8Array(
    parquetWriteBuffer({ columnData: columns.map((name) => column(name, name !== 'key')) }),
  );
}
