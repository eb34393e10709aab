/** Curves of the scores over the number of pictures as an SVG file, readable on light and dark pages and without colour. */
import type { StudyData } from './data';
import { deviation, mean } from './statistics';
import { compared } from './summary';
import type { Group } from './summary';
import { percent, sizeName } from './tables';
import { VARIANTS } from './variants';

const [WIDTH, HEIGHT] = [560, 330];
const FRAME = { left: 46, right: 150, top: 34, bottom: 42 };
/** Colours with enough contrast on white and on #0d1117, and a mark for each. */
const LOOKS = [
  { colour: '#2f81f7', mark: '<circle r="4"/>' },
  { colour: '#d9730d', mark: '<path d="M0 -5 L5 4 L-5 4 Z"/>' },
  { colour: '#2da44e', mark: '<rect x="-4" y="-4" width="8" height="8"/>' },
  { colour: '#bf4b8a', mark: '<path d="M0 -5.5 L5.5 0 L0 5.5 L-5.5 0 Z"/>' },
  { colour: '#8b8d94', mark: '<path d="M-4 -4 L4 4 M4 -4 L-4 4" fill="none" stroke-width="2.5"/>' },
];

/** The main variants of one data set: means, and bars of one standard deviation over the seeds. */
export function picture(data: StudyData, groups: readonly Group[]): string {
  const sizes = data.sizes.filter((size) => compared(groups, size).length > 0);
  const top = Math.ceil(Math.max(...groups.map(({ score }) => percent(Math.max(...score)))) / 100) * 100;
  const x = (size: number) =>
    scale(
      Math.log(size),
      Math.log(sizes[0]),
      Math.log(sizes[sizes.length - 1]),
      FRAME.left + 14,
      WIDTH - FRAME.right,
    );
  const y = (value: number) => scale(value, 0, top, HEIGHT - FRAME.bottom, FRAME.top);
  const lines = VARIANTS.filter(({ main }) => main).map(({ name }, i) => {
    const points = sizes.flatMap((size) => compared(groups, size).filter(({ variant }) => variant === name));
    return { name, points, ...LOOKS[i] };
  });
  const what = data.metric === 'accuracy' ? 'accuracy, %' : 'CIDEr-D';
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" font-family="system-ui, sans-serif" font-size="12">`,
    `<title>${data.title}: ${what} on held-out pictures by the number of training pictures</title>`,
    '<style>.ink { fill: #57606a } .grid { stroke: #d0d7de } @media (prefers-color-scheme: dark) { .ink { fill: #9da7b3 } .grid { stroke: #30363d } }</style>',
    `<text class="ink" x="4" y="16">${what} on held-out pictures, mean and standard deviation of three seeds</text>`,
    ...[0, 1, 2, 3, 4].map((i) => gridLine((top * i) / 4, y((top * i) / 4))),
    ...sizes.map(
      (size) =>
        `<text class="ink" x="${x(size)}" y="${HEIGHT - 20}" text-anchor="middle">${sizeName(size, data)}</text>`,
    ),
    `<text class="ink" x="${(FRAME.left + WIDTH - FRAME.right) / 2}" y="${HEIGHT - 4}" text-anchor="middle">training pictures</text>`,
    ...lines.map((line) => curve(line, x, y)),
    ...legend(lines, y),
    '</svg>',
    '',
  ].join('\n');
}

interface Line {
  name: string;
  points: readonly Group[];
  colour: string;
  mark: string;
}

const scale = (value: number, from: number, to: number, a: number, b: number) =>
  Math.round((a + ((value - from) / (to - from || 1)) * (b - a)) * 10) / 10;

const gridLine = (value: number, at: number) =>
  `<line class="grid" x1="${FRAME.left}" x2="${WIDTH - FRAME.right + 10}" y1="${at}" y2="${at}"/><text class="ink" x="${FRAME.left - 6}" y="${at + 4}" text-anchor="end">${value}</text>`;

function curve(
  { name, points, colour, mark }: Line,
  x: (size: number) => number,
  y: (value: number) => number,
): string {
  const at = points.map(({ size, score }) => ({
    left: x(size),
    size,
    value: percent(mean(score)),
    spread: percent(deviation(score)),
  }));
  const path = at.map(({ left, value }) => `${left},${y(value)}`).join(' ');
  const bars = at
    .map(({ left, value, spread }) => `M${left} ${y(value - spread)} V${y(value + spread)}`)
    .join(' ');
  const marks = at.map(
    ({ left, value, spread, size }) =>
      `<g transform="translate(${left} ${y(value)})">${mark}<title>${name}, ${size} pictures: ${value.toFixed(0)} ± ${spread.toFixed(0)}</title></g>`,
  );
  return `<g stroke="${colour}" fill="${colour}"><polyline points="${path}" fill="none" stroke-width="2"/><path d="${bars}" fill="none" stroke-width="1.5"/>${marks.join('')}</g>`;
}

/** Names at the ends of the lines, moved apart. */
function legend(lines: readonly Line[], y: (value: number) => number): string[] {
  const ends = lines
    .filter(({ points }) => points.length > 0)
    .map((line) => ({ line, at: y(percent(mean(line.points[line.points.length - 1].score))) }))
    .sort((a, b) => a.at - b.at);
  let free = FRAME.top;
  return ends.map(({ line: { name, colour, mark }, at }) => {
    const top = Math.max(at, free);
    free = top + 16;
    const left = WIDTH - FRAME.right + 22;
    return `<g stroke="${colour}" fill="${colour}" transform="translate(${left} ${top})">${mark}</g><text class="ink" x="${left + 10}" y="${top + 4}">${name}</text>`;
  });
}
