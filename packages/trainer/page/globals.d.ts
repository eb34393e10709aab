import type { drawChart as draw } from './chart.js';

declare global {
  /** report.js follows chart.js in one script. */
  const drawChart: typeof draw;
}
