/** Tables of settings: the record type, defaults, problems and JSON Schema that follow from one. */
import { probableName } from '@blip2/nn';
import type { PresetName } from '@blip2/peft-lora';
import type { Check, JsonSchema } from './checks';
import { ConfigError } from './checks';

/** The settings that defaults of others depend on. */
export interface Given {
  preset: PresetName;
  image_augmentation?: unknown;
}

type Default<T> = T | ((given: Given) => T | undefined);

/** One row of a table. Without a default, the setting may be left out; a default that the check refuses must be given. */
export interface Field<T = unknown> {
  check: Check<T>;
  default?: Default<T>;
  /** what it does, for docs, help and editors */
  doc: string;
  /** other names that people use for it; an error about one of them suggests the setting */
  aka?: readonly string[];
}

/** A field of the whole configuration. */
export interface Setting<T = unknown> extends Field<T> {
  /** Does it influence the result? Then a resumed run must have the same value. */
  shapes: boolean;
  /** its own option of `blip2 fit`, as commander writes it */
  flag?: string;
  /** the option's help, where it is not `doc` */
  help?: string;
}

export type Fields = Record<string, Field>;

export function field<T, const O extends Omit<Field<T>, 'check'>>(check: Check<T>, about: O) {
  return { check, ...about };
}

export function setting<T, const O extends Omit<Setting<T>, 'check'>>(check: Check<T>, about: O) {
  return { check, ...about };
}

type DefaultOf<F> = F extends { default: infer D }
  ? D extends (...given: never[]) => infer R
    ? R
    : D
  : undefined;
type Optional<F> = { [K in keyof F]: undefined extends DefaultOf<F[K]> ? K : never }[keyof F];
type ValueOf<F> = F extends { check: Check<infer T> } ? T : never;
type Flat<T> = { [K in keyof T]: T[K] };

/** The record that a table describes: what has a default is always there. */
export type Resolved<F> = Flat<
  { [K in Exclude<keyof F, Optional<F>>]: ValueOf<F[K]> } & { [K in Optional<F>]?: ValueOf<F[K]> }
>;

/** A mapping with its own table. */
export interface Group<F extends Fields> extends Check<Resolved<F>> {
  fields: F;
}

export function group<F extends Fields>(fields: F): Group<F> {
  return {
    fields,
    expected: `a mapping with ${Object.keys(fields).join(', ')}`,
    schema: schemaOf(fields),
    accepts: (value): value is Resolved<F> => isRecord(value) && problemsOf(fields, value, '').length === 0,
  };
}

/** The fields of a group; nothing for other checks. */
export function fieldsOf(check: Check<unknown>): Fields | undefined {
  return 'fields' in check ? (check as Group<Fields>).fields : undefined;
}

/** Every default; settings that may be left out are not there. */
export function defaultsOf<F extends Fields>(fields: F, given: Given): Resolved<F> {
  const values = Object.entries(fields).map(([key, { default: value }]) => [
    key,
    typeof value === 'function' ? (value as (given: Given) => unknown)(given) : value,
  ]);
  return structuredClone(Object.fromEntries(values.filter(([, value]) => value !== undefined)));
}

/**
 * `values` over the defaults, groups key by key. Null (YAML's `key:`) and undefined mean "not given".
 * @throws ConfigError with the problems that are `known` already, every unknown key, missing key and wrong value
 */
export function resolveFields<F extends Fields>(
  fields: F,
  values: Record<string, unknown>,
  given: Given,
  where: string,
  known: string[],
): Resolved<F> {
  const record = withDefaults(fields, values, given);
  const problems = [...known, ...problemsOf(fields, record, '')];
  if (problems.length) throw new ConfigError(where, problems);
  return record as Resolved<F>;
}

function withDefaults(fields: Fields, values: Record<string, unknown>, given: Given) {
  const out: Record<string, unknown> = defaultsOf(fields, given);
  for (const [key, value] of Object.entries(values)) {
    if (value === undefined || value === null) continue;
    const inner = Object.hasOwn(fields, key) && fieldsOf(fields[key].check);
    out[key] = inner && isRecord(value) ? withDefaults(inner, value, given) : value;
  }
  return out;
}

/** Names are dotted paths. */
function problemsOf(fields: Fields, record: object, path: string): string[] {
  const values = record as Record<string, unknown>;
  const unknown = Object.keys(values)
    .filter((key) => !Object.hasOwn(fields, key))
    .map((key) => {
      const near = alsoKnownAs(fields, key) ?? probableName(key, Object.keys(fields));
      return `${path}${key}: unknown setting${near ? ` (did you mean ${path}${near}?)` : ''}`;
    });
  return [
    ...unknown,
    ...Object.entries(fields).flatMap(([key, field]) => problemsOfValue(field, values[key], path + key)),
  ];
}

/** The setting that has this name elsewhere, with `_` or `-`. */
function alsoKnownAs(fields: Fields, key: string): string | undefined {
  const name = key.toLowerCase().replaceAll('-', '_');
  return Object.keys(fields).find((setting) => fields[setting].aka?.includes(name));
}

function problemsOfValue({ check, default: usual }: Field, value: unknown, path: string): string[] {
  const inner = fieldsOf(check);
  if (value === undefined && (usual === undefined || typeof usual === 'function')) return [];
  if (inner && isRecord(value)) return problemsOf(inner, value, path + '.');
  if (check.accepts(value)) return [];
  const found = value === undefined || value === '' ? 'nothing' : JSON.stringify(value);
  return [`${path}: expected ${check.explain?.(value) ?? check.expected}, found ${found}`];
}

/** JSON Schema of a mapping. A value may be null, which means "not given", unless the setting must be given. */
export function schemaOf(fields: Fields): JsonSchema {
  const entries = Object.entries(fields);
  const required = entries.filter(([, field]) => mustBeGiven(field)).map(([key]) => key);
  const properties = entries.map(([key, field]) => {
    const { check, doc, default: usual } = field;
    const shown = typeof usual === 'function' || mustBeGiven(field) ? {} : { default: usual };
    const schema = mustBeGiven(field) ? check.schema : orNull(check.schema);
    return [key, { description: doc, ...schema, ...shown }];
  });
  return {
    type: 'object',
    properties: Object.fromEntries(properties),
    additionalProperties: false,
    ...(required.length > 0 && { required }),
  };
}

function mustBeGiven({ check, default: usual }: Field): boolean {
  return usual !== undefined && typeof usual !== 'function' && !check.accepts(usual);
}

function orNull({ type, ...schema }: JsonSchema): JsonSchema {
  if (type !== undefined) return { type: [type, 'null'], ...schema };
  const key = 'enum' in schema ? 'enum' : 'anyOf';
  return { ...schema, [key]: [...(schema[key] as unknown[]), key === 'enum' ? null : { type: 'null' }] };
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
