/*
 * Charts with hover and zoom, by uPlot. The pages of runs have this text in their script, without the word `export`; studio
 * imports it.
 */

/**
 * A series is drawn as a line, or as marks joined by a dashed line; `colour` is one of the page's.
 * @typedef {{ name: string, look: 'line' | 'marks', colour: number, y: (number | null)[] }} ChartSeries
 * @typedef {{ axis: 'zero' | 'free' | 'log', digits?: number, suffix?: string, x: number[], series: ChartSeries[] }} ChartData
 */

/** Round ticks of a logarithmic axis: 1, 2 and 5 times powers of ten, or powers of ten alone if those are many. */
const logSplits = (low, high) => {
  const factors = Math.log10(high / low) > 3 ? [1] : [1, 2, 5];
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const factor of factors) all.push(Number((factor * 10 ** power).toPrecision(12)));
  return all.filter((tick) => tick >= low && tick <= high);
};

const RANGES = {
  zero: (low, high) => [Math.min(0, low), high > 0 ? 1.06 * high : 1],
  free: (low, high) => [low - 0.08 * (high - low || 1), high + 0.08 * (high - low || 1)],
  log: (low, high) => [low / 1.2, high * 1.2],
};

/** Without a pointer, the legend has the last values. */
function showLast(plot) {
  plot.setLegend({ idxs: plot.data.map((values) => values.findLastIndex((y) => y != null)) });
}

function nearest(values, at) {
  for (let away = 1; away < values.length; away++)
    for (const i of [at - away, at + away]) if (values[i] != null) return i;
  return at;
}

/**
 * Draws a chart in place of what is in an element; it follows the element's width, and light and dark.
 * @param {typeof import('uplot')} Plot
 * @param {HTMLElement} place
 * @param {ChartData} data
 * @returns {{ setData(data: ChartData): void, destroy(): void }}
 */
export function drawChart(Plot, place, { axis, digits, suffix = '', x, series }) {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = (y) => Number(y.toPrecision(3)) + suffix;
  const exact = (y) => (y == null ? '–' : digits === undefined ? short(y) : y.toFixed(digits) + suffix);
  const tick = {
    stroke: () => css('--soft'),
    grid: { stroke: () => css('--line'), width: 1 },
    ticks: { show: false },
  };
  const line = ({ name, look, colour }) => ({
    label: name,
    stroke: () => css(`--c${colour}`),
    width: 1.8,
    spanGaps: true,
    dash: look === 'marks' ? [5, 4] : undefined,
    points: { show: look === 'marks' || x.length < 3, size: 8, fill: () => css(`--c${colour}`) },
    value: (_, y) => exact(y),
  });
  const size = () => ({ width: place.clientWidth, height: place.closest('.full') ? 300 : 220 });
  const options = {
    ...size(),
    scales: {
      x: { time: false },
      y: { distr: axis === 'log' ? 3 : 1, range: (_, low, high) => RANGES[axis](low ?? 1, high ?? 1) },
    },
    axes: [
      { ...tick, size: 30 },
      {
        ...tick,
        size: 58,
        values: (_, splits) => splits.map(short),
        ...(axis === 'log' && {
          splits: (_, __, low, high) => logSplits(low, high),
          filter: (_, splits) => splits,
        }),
      },
    ],
    series: [{ label: 'step', value: (_, step) => step ?? '–' }, ...series.map(line)],
    // a series has its nearest value where it has none of its own
    cursor: { dataIdx: (plot, i, at) => (plot.data[i][at] == null ? nearest(plot.data[i], at) : at) },
    hooks: { ready: [showLast] },
  };
  const columns = (data) => [data.x, ...data.series.map(({ y }) => y)];
  place.replaceChildren();
  const plot = new Plot(/** @type {any} */ (options), /** @type {any} */ (columns({ x, series })), place);
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const redraw = () => plot.redraw(false, true);
  const resized = new ResizeObserver(() => plot.setSize(size()));
  plot.over.addEventListener('mouseleave', () => requestAnimationFrame(() => showLast(plot)));
  resized.observe(place);
  dark.addEventListener('change', redraw);
  return {
    setData: (data) => {
      plot.setData(/** @type {any} */ (columns(data)));
      showLast(plot);
    },
    destroy: () => {
      dark.removeEventListener('change', redraw);
      resized.disconnect();
      plot.destroy();
    },
  };
}
