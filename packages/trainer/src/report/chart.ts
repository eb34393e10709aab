/**
 * A line chart: inline SVG, readable without colour and without script, with its numbers in titles. page/report.js puts a
 * chart with hover and zoom in its place, from the same numbers in `data-chart`.
 */
import type { Html } from './html';
import { html } from './html';
import { logTicks, ticks } from './ticks';

export interface Series {
  name: string;
  /** `line` for many points, `marks` for a few: joined by a dashed line */
  look: 'line' | 'marks';
  points: { x: number; y: number }[];
  /** which of the page's colours; without it, the place of the series */
  colour?: number;
}

/** How values are printed: with so many decimals (or three significant digits), and with a unit behind them. */
interface Format {
  digits?: number;
  suffix?: string;
}

export interface Chart extends Format {
  title: string;
  series: Series[];
  /** the y axis does not begin at 0; it is logarithmic if all values are above 0 and differ by a factor of four */
  log?: boolean;
  /** as wide as the page */
  wide?: boolean;
}

export const COLOURS = 8;
const HEIGHT = 240;
const FRAME = { left: 52, right: 12, top: 12, bottom: 36 };

/** Undefined if there are fewer than two points. */
export function chart({ title, log, wide, digits, suffix, ...given }: Chart): Html | undefined {
  const series = given.series.flatMap(drawable);
  const ys = series.flatMap(({ points }) => points.map(({ y }) => y));
  if (ys.length < 2) return undefined;
  const axis = !log ? 'zero' : isWide(ys) ? 'log' : 'free';
  const format = { digits, suffix };
  const data = { axis, ...format, ...columns(series) };
  return html`<figure class="chart${wide ? ' full' : ''}">
    <figcaption>
      <b>${title}${axis === 'log' && ', log axis'}</b>
      <span class="keys">${series.map(legend)}</span>
    </figcaption>
    <div
      class="plot"
      role="img"
      aria-label="${summary(title, series, format)}"
      data-chart="${JSON.stringify(data)}"
    >
      ${svg(series, axis, wide ? 560 : 440, format)}
    </div>
  </figure>`;
}

type Axis = 'zero' | 'free' | 'log';
type Drawn = Required<Series>;

function drawable(one: Series, place: number): Drawn[] {
  const points = one.points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y));
  return points.length > 0 ? [{ ...one, points, colour: (one.colour ?? place) % COLOURS }] : [];
}

function isWide(ys: number[]): boolean {
  const low = Math.min(...ys);
  return low > 0 && Math.max(...ys) >= 4 * low;
}

/** One list of x, from 0 on, and for each series as many y. */
function columns(series: Drawn[]) {
  const x = [...new Set([0, ...series.flatMap(({ points }) => points.map((point) => point.x))])].sort(
    (a, b) => a - b,
  );
  const lines = series.map(({ points, ...one }) => {
    const at = new Map(points.map((point) => [point.x, point.y]));
    return { ...one, y: x.map((value) => at.get(value) ?? null) };
  });
  return { x, series: lines };
}

function printed(y: number, { digits, suffix = '' }: Format): string {
  return (digits === undefined ? String(Number(y.toPrecision(3))) : y.toFixed(digits)) + suffix;
}

function svg(series: Drawn[], axis: Axis, width: number, format: Format): Html {
  const points = series.flatMap((one) => one.points);
  const [last, low, high] = [
    Math.max(...points.map(({ x }) => x)),
    Math.min(...points.map(({ y }) => y)),
    Math.max(...points.map(({ y }) => y)),
  ];
  const rows = axis === 'log' ? logTicks(low, high) : ticks(axis === 'zero' ? Math.min(0, low) : low, high);
  const height = axis === 'log' ? Math.log : (y: number) => y;
  const x = scale([0, last], [FRAME.left, width - FRAME.right]);
  const of = scale([height(rows[0]), height(rows.at(-1)!)], [HEIGHT - FRAME.bottom, FRAME.top]);
  const y = (value: number) => of(height(value));
  return html`<svg viewBox="0 0 ${width} ${HEIGHT}" aria-hidden="true">
    ${rows.map((tick) => gridLine(y(tick), width, printed(tick, { suffix: format.suffix })))}
    ${ticks(0, last).map((tick) => tick <= last && xTick(x(tick), tick))}
    <text class="tick" x="${width - FRAME.right}" y="${HEIGHT - 4}" text-anchor="end">step</text>
    ${series.map((one) => draw(one, x, y, format))}
  </svg>`;
}

type Scale = (value: number) => number;

function scale([from, to]: [number, number], [a, b]: [number, number]): Scale {
  const span = to - from || 1;
  return (value) => Math.round((a + ((value - from) / span) * (b - a)) * 10) / 10;
}

function draw({ name, look, colour, points }: Drawn, x: Scale, y: Scale, format: Format): Html {
  const path = points.map((point) => `${x(point.x)},${y(point.y)}`).join(' ');
  const marks = look === 'marks' || points.length === 1 ? points : [];
  return html`<polyline class="${look} c${colour}" points="${path}" />${marks.map(
      (point) =>
        html`<circle class="mark c${colour}" cx="${x(point.x)}" cy="${y(point.y)}" r="4">
          <title>${name} at ${point.x}: ${printed(point.y, format)}</title>
        </circle>`,
    )}`;
}

function gridLine(at: number, width: number, label: string): Html {
  return html`<line class="grid" x1="${FRAME.left}" x2="${width - FRAME.right}" y1="${at}" y2="${at}" />
    <text class="tick" x="${FRAME.left - 6}" y="${at + 4}" text-anchor="end">${label}</text>`;
}

function xTick(at: number, label: number): Html {
  return html`<text class="tick" x="${at}" y="${HEIGHT - FRAME.bottom + 16}" text-anchor="middle"
    >${label}</text
  >`;
}

function legend({ name, look, colour }: Drawn): Html {
  const mark = look === 'marks' && html`<circle class="mark c${colour}" cx="14" cy="5" r="4" />`;
  return html`<span class="key"
    ><svg viewBox="0 0 28 10" width="28" height="10" aria-hidden="true">
      <polyline class="${look} c${colour}" points="0,5 28,5" />
      ${mark}</svg
    >${name}</span
  >`;
}

/** The text alternative of the chart, for screen readers. */
function summary(title: string, series: Drawn[], format: Format): string {
  const lines = series.map(({ name, points }) => {
    const [first, last] = [points[0], points[points.length - 1]];
    return `${name} from ${printed(first.y, format)} at ${first.x} to ${printed(last.y, format)} at ${last.x}`;
  });
  return `${title}: ${lines.join('; ')}`;
}
