/* The script of the report and of the comparison: charts with hover and zoom, the filter, large pictures, copied commands. */
'use strict';

{
  const root = document.documentElement;
  root.classList.add('js');
  const all = (selector) => /** @type {HTMLElement[]} */ ([...document.querySelectorAll(selector)]);
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();

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

  /** Charts in place of the static ones. */
  const plots = all('[data-chart]').map((place) => {
    const { axis, digits, suffix = '', x, series } = JSON.parse(place.dataset.chart ?? '');
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
    place.replaceChildren();
    place.closest('.chart')?.classList.add('live');
    const plot = new uPlot(options, [x, ...series.map(({ y }) => y)], place);
    plot.over.addEventListener('mouseleave', () => requestAnimationFrame(() => showLast(plot)));
    new ResizeObserver(() => plot.setSize(size())).observe(place);
    return plot;
  });

  /** Without a pointer, the legend has the last values. */
  function showLast(plot) {
    plot.setLegend({ idxs: plot.data.map((values) => values.findLastIndex((y) => y != null)) });
  }

  function nearest(values, at) {
    for (let away = 1; away < values.length; away++)
      for (const i of [at - away, at + away]) if (values[i] != null) return i;
    return at;
  }

  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    for (const plot of plots) plot.redraw(false, true);
  });

  /** The filter of the pictures. */
  const filter = /** @type {HTMLInputElement | null} */ (document.querySelector('#wrong-only'));
  const output = document.querySelector('output[for=wrong-only]');
  filter?.addEventListener('change', () => {
    document.body.classList.toggle('wrong-only', filter.checked);
    const shown = all(`#pictures li${filter.checked ? ':has(.is-wrong)' : ''}`).length;
    if (output) output.textContent = `${shown} picture${shown === 1 ? '' : 's'}`;
  });

  /** Large pictures. */
  const dialog = document.createElement('dialog');
  dialog.addEventListener('click', () => dialog.close());
  document.body.append(dialog);
  for (const image of /** @type {HTMLImageElement[]} */ (all('.shots img'))) {
    const card = /** @type {HTMLElement} */ (image.parentElement);
    const button = document.createElement('button');
    button.className = 'zoom';
    button.title = 'show it larger';
    image.replaceWith(button);
    button.append(image);
    button.addEventListener('click', () => {
      const caption = document.createElement('div');
      caption.append(...[...card.querySelectorAll('dl')].map((texts) => texts.cloneNode(true)));
      const close = document.createElement('button');
      close.textContent = 'Close';
      dialog.replaceChildren(image.cloneNode(), caption, close);
      dialog.setAttribute('aria-label', image.alt);
      dialog.showModal();
    });
  }

  /** Commands and code that can be copied. */
  for (const code of all('pre > code')) {
    const box = /** @type {HTMLElement} */ (code.parentElement);
    const button = document.createElement('button');
    button.className = 'copy';
    button.textContent = 'Copy';
    button.addEventListener('click', async () => {
      await navigator.clipboard.writeText(code.textContent ?? '');
      button.textContent = 'Copied';
    });
    box.classList.add('copyable');
    box.append(button);
  }
}
