/* The script of the report and of the comparison: charts (chart.js), the filter, large pictures, copied commands. */
'use strict';

{
  const root = document.documentElement;
  root.classList.add('js');
  const all = (selector) => /** @type {HTMLElement[]} */ ([...document.querySelectorAll(selector)]);

  /** Charts in place of the static ones. */
  for (const place of all('[data-chart]')) {
    place.closest('.chart')?.classList.add('live');
    drawChart(uPlot, place, JSON.parse(place.dataset.chart ?? ''));
  }

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
