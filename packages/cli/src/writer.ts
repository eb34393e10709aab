/** Where texts of pictures are kept while more are generated. */

/** The texts of one picture. */
export interface Texts {
  image: string;
  question?: string;
  /** the column of the texts */
  key: 'caption' | 'answer';
  texts: string[];
}

export interface Writer {
  /** whether the picture has its text already */
  has(image: string): boolean;
  write(rows: Texts[]): Promise<void>;
  close(): Promise<void>;
}
