/** Where texts of pictures are kept while more are generated. */

/** The texts of one picture. */
export interface Texts {
  /** its path, or its key in a shard */
  image: string;
  question?: string;
  /** the column of the texts */
  key: 'caption' | 'answer';
  texts: string[];
  /** why there are none */
  error?: string;
}

export interface Writer {
  /** whether the picture has its text already */
  has(image: string): boolean;
  write(rows: Texts[]): Promise<void>;
  close(): Promise<void>;
}
