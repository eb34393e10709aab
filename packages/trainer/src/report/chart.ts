/** A line chart as inline SVG: readable without colour, scalable, with its numbers in titles. */
import type { Html } from './html';
import { html } from './html';

export interface Series {
  name: string;
  /** `line` for many points, `marks` for a few: joined by a dashed line */
  look: 'line' | 'marks';
  points: { x: number; y: number }[];
}

const [WIDTH, HEIGHT] = [440, 240];
const FRAME = { left: 48, right: 12, top: 12, bottom: 36 };

/** @param format prints a y value in ticks and titles */
export function chart(
  title: string,
  xName: string,
  series: Series[],
  format: (y: number) => string,
): Html | undefined {
  const drawn = series
    .map((one) => ({
      ...one,
      points: one.points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y)),
    }))
    .filter((one) => one.points.length > 0);
  const all = drawn.flatMap((one) => one.points);
  if (all.length < 2) return undefined;
  const xs = ticks(0, Math.max(...all.map(({ x }) => x)));
  const ys = ticks(Math.min(0, ...all.map(({ y }) => y)), Math.max(...all.map(({ y }) => y)));
  const x = scale([0, Math.max(...all.map((point) => point.x))], [FRAME.left, WIDTH - FRAME.right]);
  const y = scale([ys[0], ys[ys.length - 1]], [HEIGHT - FRAME.bottom, FRAME.top]);
  return html`<figure class="chart">
    <figcaption>${title}${drawn.map(legend)}</figcaption>
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${summary(title, drawn, format)}">
      ${ys.map((tick) => gridLine(y(tick), format(tick)))} ${xs.map((tick) => xTick(x(tick), tick))}
      <text class="tick" x="${WIDTH - FRAME.right}" y="${HEIGHT - 4}" text-anchor="end">${xName}</text>
      ${drawn.map((one) => draw(one, x, y, format))}
    </svg>
  </figure>`;
}

type Scale = (value: number) => number;

function scale([from, to]: [number, number], [a, b]: [number, number]): Scale {
  const span = to - from || 1;
  return (value) => Math.round((a + ((value - from) / span) * (b - a)) * 10) / 10;
}

/** Four to seven round numbers that cover the range. */
export function ticks(low: number, high: number): number[] {
  const span = high - low || 1;
  const rough = span / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough)!;
  const first = Math.floor(low / step);
  const last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function draw(one: Series, x: Scale, y: Scale, format: (y: number) => string): Html {
  const path = one.points.map((point) => `${x(point.x)},${y(point.y)}`).join(' ');
  const marks = one.look === 'marks' ? one.points : [];
  return html`<polyline class="${one.look}" points="${path}" />${marks.map(
      (point) =>
        html`<circle class="mark" cx="${x(point.x)}" cy="${y(point.y)}" r="4">
          <title>${one.name} at ${point.x}: ${format(point.y)}</title>
        </circle>`,
    )}`;
}

function gridLine(at: number, label: string): Html {
  return html`<line class="grid" x1="${FRAME.left}" x2="${WIDTH - FRAME.right}" y1="${at}" y2="${at}" />
    <text class="tick" x="${FRAME.left - 6}" y="${at + 4}" text-anchor="end">${label}</text>`;
}

function xTick(at: number, label: number): Html | undefined {
  if (at > WIDTH - FRAME.right + 1) return undefined;
  return html`<text class="tick" x="${at}" y="${HEIGHT - FRAME.bottom + 16}" text-anchor="middle"
    >${label}</text
  >`;
}

function legend(one: Series): Html {
  const mark = one.look === 'marks' ? html`<circle class="mark" cx="14" cy="5" r="4" />` : undefined;
  return html`<span class="key"
    ><svg viewBox="0 0 28 10" width="28" height="10" aria-hidden="true">
      <polyline class="${one.look}" points="0,5 28,5" />
      ${mark}</svg
    >${one.name}</span
  >`;
}

/** The text alternative of the chart, for screen readers. */
function summary(title: string, series: Series[], format: (y: number) => string): string {
  const lines = series.map(({ name, points }) => {
    const [first, last] = [points[0], points[points.length - 1]];
    return `${name} from ${format(first.y)} at ${first.x} to ${format(last.y)} at ${last.x}`;
  });
  return `${title}: ${lines.join('; ')}`;
}
