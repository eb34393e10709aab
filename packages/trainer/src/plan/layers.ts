/**
 * Which layers of a model are alike: those with the same tensors, of which the same ones train, at the same place relative to the first
 * layer that trains. They take the same time and memory, so one of each kind is measured and stands for all.
 */
import { adapterBase, blip2Weights, frozenDepth } from '@blip2/blip2';
import type { Blip2Config } from '@blip2/blip2';
import { countPreset, presetOf } from '@blip2/peft-lora';
import type { Preset, PresetCount } from '@blip2/peft-lora';
import type { FitConfig } from '../config';
import { checkLayerDecay } from '../train/layer-decay';
import { depthsOf, PARTS, withDepths } from './small-model';
import type { Part } from './small-model';

/** What a run trains: the preset with `also_train`, and its tensors and adapters in the model's table of weights. */
export interface Trained extends PresetCount {
  preset: Preset;
  settings: FitConfig['lora'];
}

/** By model and settings, because every number of a plan is made from it. */
const found = new WeakMap<Blip2Config, Map<string, Trained>>();

/** @throws AdapterError, ConfigError as `fit`, for targets and patterns that match nothing, and a decay without effect */
export function trainedBy(config: Blip2Config, settings: FitConfig): Trained {
  const { preset, lora, also_train, lr_layer_decay } = settings;
  const key = JSON.stringify([preset, lora, also_train, lr_layer_decay]);
  const known = found.get(config) ?? new Map<string, Trained>();
  found.set(config, known);
  const trained = known.get(key) ?? countTrained(config, settings);
  known.set(key, trained);
  return trained;
}

function countTrained(config: Blip2Config, settings: FitConfig): Trained {
  const { lora, also_train = [], lr_layer_decay } = settings;
  const own = presetOf(settings.preset);
  const preset = { ...own, patterns: [...own.patterns, ...also_train] };
  const count = countPreset(blip2Weights(config), preset, lora, adapterBase(config));
  checkLayerDecay(lr_layer_decay, [...count.names, ...count.modules]);
  return { ...count, preset, settings: lora };
}

/** How many layers of the text model run before anything that trains. */
export function frozenBy(config: Blip2Config, settings: FitConfig): number {
  const { names, modules } = trainedBy(config, settings);
  return frozenDepth(config, [...names, ...modules]);
}

/** The name of a run in a plan: its preset, and the upper layers if only they train. */
export function runName(config: Blip2Config, settings: FitConfig): string {
  const frozen = frozenBy(config, settings);
  const upper = config.text_config.num_hidden_layers - frozen;
  return frozen > 0
    ? `${settings.preset}, upper ${upper} ${upper === 1 ? 'layer' : 'layers'}`
    : settings.preset;
}

/** Consecutive layers that repeat: as many as it takes for the Q-Former to have one with cross-attention. */
export interface Unit {
  /** its place in its part */
  index: number;
  /** alike units have the same */
  kind: string;
}

export type Units = Record<Part, Unit[]>;

const PREFIX: Readonly<Record<Part, string>> = {
  vision: 'vision_model.',
  qformer: 'qformer.',
  text: 'language_model.',
};
/** `language_model.model.decoder.layers.3.fc1.weight` → its list, number and rest. Encoder and decoder of T5 count as one list. */
const IN_LAYER = /^(.*?\.)(\d+)\.(.+)$/;
/** More kinds of one part are too many to measure; then layers that train count as alike. */
const MOST_KINDS = 4;

const layersOfUnit = (config: Blip2Config, part: Part) =>
  part === 'qformer' ? config.qformer_config.cross_attention_frequency : 1;

/** The units of each part. Without `trained`, of a model that only computes. */
export function unitsOf(config: Blip2Config, trained?: Trained): Units {
  const marks = marksOf(trained);
  const tables = Object.fromEntries(PARTS.map((part) => [part, [] as string[][]])) as Record<
    Part,
    string[][]
  >;
  let passed = [...marks.keys()].some(
    (name) => !IN_LAYER.test(name) && /embed|shared|query_tokens/.test(name),
  );
  for (const [name, shape] of blip2Weights(config)) {
    const part = PARTS.find((one) => name.startsWith(PREFIX[one]));
    const [, , number, rest] = IN_LAYER.exec(name) ?? [];
    if (!part || number === undefined) continue;
    const size = layersOfUnit(config, part);
    const unit = (tables[part][Math.floor(Number(number) / size)] ??= []);
    unit.push(`${Number(number) % size}.${rest} ${shape.join('×')} ${marks.get(name) ?? ''}`);
  }
  return Object.fromEntries(
    PARTS.map((part) => {
      const units = tables[part].map((lines, index): Unit => {
        const trains = lines.some((line) => !line.endsWith(' '));
        const kind = `${passed ? 'with' : 'without'} a gradient\n${lines.join('\n')}`;
        passed ||= trains;
        return { index, kind };
      });
      return [part, fewKinds(units)];
    }),
  ) as Units;
}

/** What trains of a tensor: all of it, or an adapter of some rank. */
function marksOf(trained?: Trained): Map<string, string> {
  const marks = new Map(trained?.names.map((name) => [name, 'trains']));
  trained?.modules.forEach((module, i) => {
    const name = `${module}.weight`;
    marks.set(name, `${marks.get(name) ?? ''} rank ${trained.ranks[i]}`);
  });
  return marks;
}

/** If there are many kinds, as with a rank for each layer, those that train are taken as the one in the middle by what trains. */
function fewKinds(units: Unit[]): Unit[] {
  if (new Set(units.map(({ kind }) => kind)).size <= MOST_KINDS) return units;
  const coarse = ({ kind }: Unit) => `${kind.split('\n')[0]}, ${/ (trains|.*rank \d+)$/m.test(kind)}`;
  return units.map((unit) => ({ ...unit, kind: coarse(unit) }));
}

/** A smaller model: the configuration, what trains in it, and how many units of each kind it has. */
export interface Layout {
  config: Blip2Config;
  preset?: Preset;
}

/** The model with only these units of each part, in this order; equal units may repeat. */
export function layoutOf(
  config: Blip2Config,
  chosen: Record<Part, readonly number[]>,
  trained?: Trained,
  vocabulary = Infinity,
): Layout {
  const layers = (part: Part) => {
    const size = layersOfUnit(config, part);
    const length = depthsOf(config)[part];
    return chosen[part].flatMap((unit) =>
      Array.from({ length: Math.min(size, length - unit * size) }, (_, i) => unit * size + i),
    );
  };
  const original = Object.fromEntries(PARTS.map((part) => [part, layers(part)])) as Record<Part, number[]>;
  const depths = {
    vision: original.vision.length,
    qformer: original.qformer.length,
    text: original.text.length,
  };
  const small = withDepths(config, depths, vocabulary);
  return { config: small, preset: trained && smallPreset(small, original, trained) };
}

/** What the preset trains, by the names that these tensors have in the smaller model. */
function smallPreset(
  small: Blip2Config,
  original: Record<Part, readonly number[]>,
  { preset, settings, names, modules, ranks }: Trained,
): Preset {
  const originalName = (name: string) =>
    name.replace(IN_LAYER, (_, list: string, number: string, rest: string) => {
      const part = PARTS.find((one) => list.startsWith(PREFIX[one]));
      return `${list}${part ? original[part][Number(number)] : number}.${rest}`;
    });
  const [whole, rankOf] = [new Set(names), new Map(modules.map((module, i) => [module, ranks[i]]))];
  const table = blip2Weights(small).map(([name]) => name);
  const adapted = new Map<string, number>();
  const untied = adapterBase(small).ties.map(({ alias }) => alias);
  const moduleOf = (name: string) => name.replace(/\.weight$/, '');
  for (const name of [...table, ...untied]) {
    const rank = rankOf.get(moduleOf(originalName(name)));
    if (rank !== undefined) adapted.set(moduleOf(name), rank);
  }
  const patterns = table
    .filter((name) => whole.has(originalName(name)))
    .map((name) => `^${name.replaceAll('.', '\\.')}$`);
  const saved = untied.filter((name) => whole.has(name) && !table.includes(name)).map(moduleOf);
  if (adapted.size === 0 && saved.length === 0) return { patterns };
  return { patterns, lora: { ...preset.lora, ...plainLora(settings), ...targets(adapted, saved) } };
}

/** LoRA settings that change the work, without those that choose modules. */
const plainLora = ({ use_dora, use_rslora, lora_bias, lora_dropout }: Partial<FitConfig['lora']> = {}) =>
  Object.fromEntries(
    Object.entries({ use_dora, use_rslora, lora_bias, lora_dropout }).filter(
      ([, value]) => value !== undefined,
    ),
  );

/** Marks an adapter without LoRA, as in PEFT. */
const NO_TARGETS = 'dummy-target-modules';

function targets(adapted: ReadonlyMap<string, number>, saved: string[]) {
  const rank_pattern = Object.fromEntries(
    [...adapted].map(([module, r]) => [module.replaceAll('.', '\\.'), r]),
  );
  return {
    target_modules: adapted.size > 0 ? [...adapted.keys()] : NO_TARGETS,
    rank_pattern,
    modules_to_save: saved.length > 0 ? saved : null,
  };
}
