/** Int4 weights on their way to a checkpoint, in a file: all of them together may not fit the memory. */
import { closeSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { spansOf } from '@blip2/nn';
import type { StoredWeight } from '@blip2/nn';

export class ScratchWeights {
  private readonly places = new Map<string, { at: number; bytes: number }[]>();
  private readonly file: number;
  private end = 0;

  /** @param path of the file, which must not exist */
  constructor(private readonly path: string) {
    this.file = openSync(path, 'wx+');
  }

  /** Synchronous, because it is called while a model runs. @throws the file system's error */
  add(name: string, weight: StoredWeight): void {
    this.places.set(
      name,
      spansOf(weight).map(({ bytes }) => {
        const part = bytes as Uint8Array;
        const at = this.end;
        for (let done = 0; done < part.length;)
          done += writeSync(this.file, part, done, part.length - done, at + done);
        this.end += part.length;
        return { at, bytes: part.length };
      }),
    );
  }

  /** The parts of a weight; undefined for one that was not added. */
  read(name: string): Uint8Array[] | undefined {
    return this.places.get(name)?.map(({ at, bytes }) => {
      const part = new Uint8Array(bytes);
      for (let done = 0; done < bytes;) {
        const count = readSync(this.file, part, done, bytes - done, at + done);
        if (count === 0) throw new Error(`${this.path}: expected ${bytes} bytes at ${at}, found ${done}`);
        done += count;
      }
      return part;
    });
  }

  remove(): void {
    closeSync(this.file);
    rmSync(this.path, { force: true });
  }
}
