/** The folders that studio reads, and which paths are inside them. */
import { realpath } from 'node:fs/promises';
import { isAbsolute, relative, resolve, sep } from 'node:path';

/** A path outside, or one that is not there; `status` is HTTP's. */
export class PathError extends Error {
  override name = 'PathError';
  constructor(
    message: string,
    readonly status: 400 | 403 | 404,
  ) {
    super(message);
  }
}

export interface Folders {
  /** absolute, without symbolic links; relative paths start from the first */
  roots: readonly string[];
  /**
   * The real path of something that is there, inside a root after all symbolic links.
   * @throws PathError
   */
  inside(path: string): Promise<string>;
  /** as `inside`, as an answer */
  has(path: string): Promise<boolean>;
  /** short for people: relative to the first root if it is inside it */
  shown(path: string): string;
}

/** @throws the file system's error for a root that is not there */
export async function openFolders(given: readonly string[]): Promise<Folders> {
  const roots = await Promise.all(given.map((root) => realpath(resolve(root))));
  const inside = async (path: string): Promise<string> => {
    if (typeof path !== 'string' || path.includes('\0') || path.length > 4096)
      throw new PathError('expected a path, found none', 400);
    // the answer for a path outside does not tell whether it is there
    const named = resolve(roots[0], path);
    const outside = new PathError(
      `${path}: is outside of the folders that may be read (${roots.join(', ')}); to add one, start blip2 with another --folder`,
      403,
    );
    const real = await realpath(named).catch(() => undefined);
    if (real !== undefined && roots.some((root) => isIn(root, real))) return real;
    if (real === undefined && roots.some((root) => isIn(root, named)))
      throw new PathError(`${path}: there is no such file or folder`, 404);
    throw outside;
  };
  return {
    roots,
    inside,
    has: (path) =>
      inside(path).then(
        () => true,
        () => false,
      ),
    shown: (path) => {
      const near = relative(roots[0], resolve(roots[0], path));
      return near === '' ? '.' : near.startsWith('..') || isAbsolute(near) ? path : near;
    },
  };
}

const isIn = (root: string, path: string) =>
  path === root || path.startsWith(root.endsWith(sep) ? root : root + sep);
