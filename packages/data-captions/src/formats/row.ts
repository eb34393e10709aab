/** The common form into which every format is read. */
import type { Layout } from '../layout';
import type { Problem } from '../errors';

export type Json = Record<string, unknown>;

export function isRecord(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Reports a problem of a row: what was expected, and what was found. */
export type Bad = (expected: string, found: string) => void;

/** The path of a row's picture; undefined after calling `bad`. */
export type FindImage = (name: string, row: Row, bad: Bad) => string | undefined;

/** One row of a data set, not yet checked. */
export interface Row {
  /** `file:line`, or `file:key` where there are no lines; for error messages. */
  source: string;
  values: Json;
  /** What the file has, if `values` were made from it; its columns are named in errors. */
  given?: Json;
  /** Folders that relative image paths may start from, the most likely first. */
  bases: readonly string[];
  /** The image's name (see image-name), when no column contains it. */
  image?: string;
  /** The split that the row's file or folder belongs to; a column wins over it. */
  split?: string;
  /** How the data set's columns and pictures are found. */
  where?: { layout: Layout; findImage: FindImage };
}

export interface ReadRows {
  rows: Row[];
  problems: Problem[];
}
