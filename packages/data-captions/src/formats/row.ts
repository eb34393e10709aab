/** What every format is read into. */
import type { Problem } from '../errors';

/** One row of a data set, not yet checked. */
export interface Row {
  /** `file:line`, or `file:key` where there are no lines; for error messages. */
  source: string;
  values: Record<string, unknown>;
  /** Folders that relative image paths may start from, the likeliest first. */
  bases: readonly string[];
  /** The image, when the row does not name it in a column: see image-source. */
  image?: string;
  /** The split, when the row's file tells it for this row. */
  split?: string;
}

export interface ReadRows {
  rows: Row[];
  problems: Problem[];
}
