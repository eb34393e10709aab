/** Charts of three kinds with a caption each, such as "pie chart of 3 parts, green is largest, red is smallest". */
import type { Random } from './random';
import type { Colour } from './colours';
import { COLOUR_NAMES, COLOURS } from './colours';

export interface Drawing {
  /** 100 × 100 units */
  svg: string;
  text: { caption: string } | { question: string; answer: string };
}

const KINDS = ['bar chart', 'pie chart', 'line chart'] as const;
interface Part {
  colour: Colour;
  /** from 0 to 1 */
  value: number;
}

export function drawChart(random: Random): Drawing {
  const kind = random.pick(KINDS);
  const colours = random.shuffled(COLOUR_NAMES).slice(0, random.whole(2, 4));
  const values = random.shuffled(apart(colours.length, random));
  const parts = colours.map((colour, i) => ({ colour, value: values[i] }));
  const ranked = [...parts].sort((a, b) => b.value - a.value);
  const size = kind === 'pie chart' ? ['largest', 'smallest'] : ['highest', 'lowest'];
  const caption = `${kind} of ${parts.length} ${kind === 'line chart' ? 'lines' : 'parts'}, ${ranked[0].colour} is ${size[0]}, ${ranked[parts.length - 1].colour} is ${size[1]}`;
  return { svg: SHAPES[kind](parts, random), text: { caption } };
}

/** Values that the eye can tell apart. */
const apart = (n: number, random: Random) =>
  Array.from({ length: n }, (_, i) => (i + 1) / n - random.between(0, 0.35 / n));

const SHAPES: Record<(typeof KINDS)[number], (parts: readonly Part[], random: Random) => string> = {
  'bar chart': (parts, random) => {
    const width = 80 / parts.length;
    const gap = random.between(2, 6);
    const bars = parts.map(({ colour, value }, i) => {
      const [x, y] = [12 + i * width, 90 - 80 * value];
      return `<rect x="${x}" y="${y}" width="${width - gap}" height="${90 - y}" fill="${COLOURS[colour]}"/>`;
    });
    return AXES + bars.join('');
  },
  'line chart': (parts, random) =>
    AXES +
    parts
      .map(({ colour, value }) => {
        const points = [0, 1, 2, 3].map((i) => `${12 + 26 * i},${90 - 78 * value + random.between(-4, 4)}`);
        return `<polyline points="${points.join(' ')}" fill="none" stroke="${COLOURS[colour]}" stroke-width="6"/>`;
      })
      .join(''),
  'pie chart': (parts, random) => {
    const total = parts.reduce((sum, { value }) => sum + value, 0);
    const radius = random.between(36, 46);
    let angle = random.between(0, 2 * Math.PI);
    const at = () => `${50 + radius * Math.cos(angle)} ${50 + radius * Math.sin(angle)}`;
    return parts
      .map(({ colour, value }) => {
        const from = at();
        const turn = (2 * Math.PI * value) / total;
        angle += turn;
        const arc = `A${radius} ${radius} 0 ${turn > Math.PI ? 1 : 0} 1 ${at()}`;
        return `<path d="M50 50 L${from} ${arc} Z" fill="${COLOURS[colour]}"/>`;
      })
      .join('');
  },
};

const AXES = '<path d="M8 6 V92 H96" fill="none" stroke="#6b7280" stroke-width="3"/>';
