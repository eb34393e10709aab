/** A shader and how it is run. */

export interface Program {
  /** The name of its file; with the constants, it identifies the pipeline. */
  name: string;
  /** Such as `enable f16;`. */
  directives?: readonly string[];
  /** WGSL with an entry point `main`; storage buffers at the bindings 0, 1, … of group 0, and then a uniform, if it has one. */
  code: string;
  /** Put before the code as `const NAME = value;`. */
  constants?: Readonly<Record<string, number | boolean>>;
}

/** Groups of threads in each direction. */
export type Grid = readonly [x: number, y?: number, z?: number];

/** A number of a uniform: u32, unless it is given as a float. */
export type Uniform = number | { readonly f32: number };

/** Threads of a group of the shaders that work on one element each. */
export const LANES = 256;

const MOST_GROUPS = 65535;

/** A grid of `groups` groups in a row: a shader finds its own as `id.y * groups.x + id.x`, which may be beyond the last. */
export function lineOf(groups: number): Grid {
  if (groups <= MOST_GROUPS) return [groups];
  const y = Math.ceil(groups / MOST_GROUPS);
  return [Math.ceil(groups / y), y];
}

/** A grid with a thread for each of `count` elements. */
export const elementsOf = (count: number): Grid => lineOf(Math.ceil(count / LANES));

export const f32 = (value: number): Uniform => ({ f32: value });

export function keyOf({ name, constants = {} }: Program): string {
  return `${name} ${Object.entries(constants)
    .map(([key, value]) => `${key}=${value}`)
    .join()}`;
}

export function sourceOf({ directives = [], code, constants = {} }: Program): string {
  const lines = Object.entries(constants).map(([key, value]) =>
    typeof value === 'boolean' ? `const ${key} = ${value};` : `const ${key} = ${value}u;`,
  );
  return [...directives, ...lines, code].join('\n');
}

/** The bytes of a uniform, a multiple of 16. */
export function bytesOf(uniforms: readonly Uniform[]): ArrayBuffer {
  const bytes = new ArrayBuffer(Math.ceil(uniforms.length / 4) * 16);
  const [words, floats] = [new Uint32Array(bytes), new Float32Array(bytes)];
  uniforms.forEach((value, i) => {
    if (typeof value === 'number') words[i] = value;
    else floats[i] = value.f32;
  });
  return bytes;
}
