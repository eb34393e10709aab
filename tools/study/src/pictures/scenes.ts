/** Shapes in the four quarters of a picture, with one question each and a short answer. */
import type { Drawing } from './charts';
import type { Random } from './random';
import type { Colour } from './colours';
import { COLOUR_NAMES, COLOURS } from './colours';

const SHAPES = {
  circle: '<circle r="16"/>',
  square: '<rect x="-15" y="-15" width="30" height="30"/>',
  triangle: '<path d="M0 -17 L17 14 L-17 14 Z"/>',
  star: '<path transform="scale(1.8)" d="M0 -10 L2.4 -3.2 L9.5 -3.1 L3.8 1.2 L5.9 8.1 L0 4 L-5.9 8.1 L-3.8 1.2 L-9.5 -3.1 L-2.4 -3.2 Z"/>',
} as const;
type Shape = keyof typeof SHAPES;
const SHAPE_NAMES = Object.keys(SHAPES) as Shape[];
const QUARTERS = ['top left', 'top right', 'bottom left', 'bottom right'] as const;

interface Thing {
  quarter: (typeof QUARTERS)[number];
  shape: Shape;
  colour: Colour;
}

export function drawScene(random: Random): Drawing {
  const quarters = random.shuffled(QUARTERS).slice(0, random.whole(1, 4));
  const shapes = random.shuffled(SHAPE_NAMES);
  const colours = random.shuffled(COLOUR_NAMES);
  const things = quarters.map((quarter, i) => ({ quarter, shape: shapes[i], colour: colours[i] }));
  const text = random.pick(QUESTIONS)(random.pick(things), things);
  return { svg: things.map((thing) => svgOf(thing, random)).join(''), text };
}

const QUESTIONS: readonly ((one: Thing, all: readonly Thing[]) => { question: string; answer: string })[] = [
  (one) => ({ question: `which colour is the ${one.shape}?`, answer: one.colour }),
  (one) => ({ question: `which shape is ${one.colour}?`, answer: one.shape }),
  (one) => ({ question: `where is the ${one.shape}?`, answer: one.quarter }),
  (_, all) => ({
    question: 'how many shapes are there?',
    answer: ['one', 'two', 'three', 'four'][all.length - 1],
  }),
];

function svgOf({ quarter, shape, colour }: Thing, random: Random): string {
  const [row, column] = quarter.split(' ');
  const x = (column === 'left' ? 26 : 74) + random.between(-5, 5);
  const y = (row === 'top' ? 26 : 74) + random.between(-5, 5);
  return `<g transform="translate(${x} ${y})" fill="${COLOURS[colour]}">${SHAPES[shape]}</g>`;
}
