/** Where the columns and pictures of a data set are, as settings and options. */

export interface Layout {
  /** Name of the column with the picture's path. */
  image_column?: string;
  caption_column?: string;
  question_column?: string;
  answer_column?: string;
  /** Folder from which the paths of pictures start. Default: found by the data file. */
  image_folder?: string;
}

/** What each of them is, for settings and options. */
export const LAYOUT: Record<keyof Layout, string> = {
  image_column: "column with the picture's path, if it has none of the usual names (docs/data.md)",
  caption_column: 'column with the caption',
  question_column: 'column with the question',
  answer_column: 'column with the answer or answers',
  image_folder: 'folder from which the paths of pictures start, if they are not near the data file',
};

/** The part of a record that is a layout. */
export const layoutOf = (settings: Layout): Layout =>
  Object.fromEntries(
    (Object.keys(LAYOUT) as (keyof Layout)[]).flatMap((key) =>
      settings[key] === undefined ? [] : [[key, settings[key]]],
    ),
  );
