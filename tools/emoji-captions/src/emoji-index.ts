// The index of the demo drawings: every emoji of four icon sets, joined with its Unicode (CLDR) label.
import { createRequire } from 'node:module';
import sharp from 'sharp';

const require = createRequire(import.meta.url);

/** The four core drawing styles; licences are in the README (OpenMoji is share-alike: rendered, never committed). */
export const STYLES = ['noto', 'twemoji', 'openmoji', 'fluent-emoji-flat'] as const;
export type Style = (typeof STYLES)[number];

/** One drawing of one emoji. */
export interface EmojiRow {
  style: Style;
  /** Code points in hex joined by '-', without the variation selector fe0f: the same concept in every style. */
  hex: string;
  /** CLDR short name, such as `woman police officer: medium skin tone`. */
  label: string;
  /** Search words of the concept, shared by its skin-tone variants. */
  tags: string[];
  group: string;
  subgroup: string;
  /** The complete drawing as an SVG document. */
  svg: string;
}

interface Emoji {
  hexcode: string;
  label: string;
  tags?: string[];
  group?: number;
  subgroup?: number;
  skins?: Emoji[];
}

interface Icon {
  body: string;
  left?: number;
  top?: number;
  width?: number;
  height?: number;
}

interface IconSet {
  icons: Record<string, Icon>;
  aliases?: Record<string, { parent: string }>;
  width?: number;
  height?: number;
}

type Meta = Pick<EmojiRow, 'label' | 'tags' | 'group' | 'subgroup'>;

/**
 * Every drawing of the four styles that has a label and a group: 14,709 rows with the pinned packages, style by
 * style.
 */
export function emojiIndex(): EmojiRow[] {
  const labels = readLabels();
  return STYLES.flatMap((style) => readStyle(style, labels));
}

/** Versions of the packages that determine labels and pixels, for the manifest of a rendered folder. */
export function sourceVersions(): Record<string, string> {
  const names = [...STYLES.map((style) => `@iconify-json/${style}`), 'emojibase-data'];
  const versionOf = (name: string) => (require(`${name}/package.json`) as { version: string }).version;
  const { sharp: code = '', vips = '', rsvg = '' } = sharp.versions;
  return { ...Object.fromEntries(names.map((name) => [name, versionOf(name)])), sharp: code, vips, rsvg };
}

/** `1F9D1-200D-FE0F` → `1f9d1-200d`: only some sets have the variation selector. */
function normalizeHex(hexcode: string): string {
  return hexcode
    .toLowerCase()
    .split('-')
    .filter((part) => part !== 'fe0f')
    .join('-');
}

function readLabels(): Map<string, Meta> {
  const emojis = require('emojibase-data/en/data.json') as Emoji[];
  const names = require('emojibase-data/meta/groups.json') as {
    groups: Record<string, string>;
    subgroups: Record<string, string>;
  };
  const labels = new Map<string, Meta>();
  for (const emoji of emojis) {
    if (emoji.group === undefined) continue; // regional letters and bare components
    const shared = {
      tags: emoji.tags ?? [],
      group: names.groups[emoji.group],
      subgroup: names.subgroups[emoji.subgroup ?? -1] ?? '',
    };
    for (const form of [emoji, ...(emoji.skins ?? [])])
      labels.set(normalizeHex(form.hexcode), { label: form.label, ...shared });
  }
  return labels;
}

function readStyle(style: Style, labels: Map<string, Meta>): EmojiRow[] {
  const set = require(`@iconify-json/${style}/icons.json`) as IconSet;
  const chars = require(`@iconify-json/${style}/chars.json`) as Record<string, string>;
  const rows: EmojiRow[] = [];
  for (const [hexcode, name] of Object.entries(chars)) {
    const hex = normalizeHex(hexcode);
    const meta = labels.get(hex);
    const icon = findIcon(set, name);
    if (meta && icon) rows.push({ style, hex, ...meta, svg: toSvg(icon, set) });
  }
  return rows;
}

/** Follows aliases to the icon with the drawing. */
function findIcon(set: IconSet, name: string): Icon | undefined {
  for (let hops = 0; hops < 5; hops++) {
    if (set.icons[name]) return set.icons[name];
    const parent = set.aliases?.[name]?.parent;
    if (parent === undefined) return undefined;
    name = parent;
  }
  return undefined;
}

function toSvg(icon: Icon, set: IconSet): string {
  const width = icon.width ?? set.width ?? 16;
  const height = icon.height ?? set.height ?? 16;
  const namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"';
  return `<svg ${namespaces} viewBox="${icon.left ?? 0} ${icon.top ?? 0} ${width} ${height}">${icon.body}</svg>`;
}
