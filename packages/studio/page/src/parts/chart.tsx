/** A chart that grows. */
import { useEffect, useRef } from 'preact/hooks';
import { drawChart } from '@blip2/trainer/page/chart.js';
import type { ChartData, ChartSeries } from '@blip2/trainer/page/chart.js';
import Plot from 'uplot';
import type { MetricRow } from '../../../src/api';

export interface LiveChart {
  title: string;
  wide?: boolean;
  axis: ChartData['axis'];
  digits?: number;
  suffix?: string;
  /** names of series, their fields in the rows, and a factor */
  series: { name: string; field: string; look: ChartSeries['look']; factor?: number }[];
}

function dataOf({ axis, digits, suffix, series }: LiveChart, rows: readonly MetricRow[]): ChartData {
  const x = [0, ...new Set(rows.map(({ step }) => step))];
  const columns = series.map(({ name, field, look, factor = 1 }, colour) => {
    const at = new Map(
      rows.flatMap((row): [number, number][] => {
        const value = row[field];
        return typeof value === 'number' ? [[row.step, factor * value]] : [];
      }),
    );
    return { name, look, colour, y: x.map((step) => at.get(step) ?? null) };
  });
  return { axis, digits, suffix, x, series: columns };
}

/** Not drawn before it has two values. */
export function Chart({ chart, rows }: { chart: LiveChart; rows: readonly MetricRow[] }) {
  const place = useRef<HTMLDivElement>(null);
  const drawn = useRef<ReturnType<typeof drawChart> | undefined>(undefined);
  const data = dataOf(chart, rows);
  const there = data.series.some(({ y }) => y.filter((value) => value !== null).length > 1);
  useEffect(() => {
    if (!there) return;
    drawn.current = drawChart(Plot, place.current!, data);
    return () => drawn.current?.destroy();
  }, [there]);
  useEffect(() => drawn.current?.setData(data), [rows]);
  if (!there) return null;
  const last = data.series.map(({ name, y }) => `${name} ${y.findLast((value) => value !== null) ?? '–'}`);
  return (
    <figure class={`chart live ${chart.wide ? 'full' : ''}`}>
      <figcaption>
        <b>
          {chart.title}
          {chart.axis === 'log' && ', log axis'}
        </b>
      </figcaption>
      <div
        class="plot"
        ref={place}
        role="img"
        aria-label={`${chart.title}, last values: ${last.join(', ')}`}
      />
    </figure>
  );
}
