/** The loss of each step, as a line that grows. */

const [WIDTH, HEIGHT] = [360, 150];
const [LEFT, BOTTOM, TOP, RIGHT] = [32, 24, 8, 8];

/** `losses` of steps 1, 2, …; of `steps` altogether. */
export function Curve({ losses, steps }: { losses: readonly number[]; steps: number }) {
  const most = Math.max(1e-6, ...losses);
  const x = (step: number) => LEFT + ((WIDTH - LEFT - RIGHT) * (step - 1)) / Math.max(1, steps - 1);
  const y = (loss: number) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - TOP) * loss) / most;
  const points = losses.map((loss, i) => `${x(i + 1).toFixed(1)},${y(loss).toFixed(1)}`).join(' ');
  const last = losses.at(-1);
  return (
    <figure class="curve">
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        role="img"
        aria-label={`Loss by step, ${losses.length} of ${steps} steps, last value ${last?.toFixed(2) ?? 'none'}`}
      >
        <line x1={LEFT} x2={WIDTH - RIGHT} y1={y(0)} y2={y(0)} class="axis" />
        <line x1={LEFT} x2={LEFT} y1={TOP} y2={y(0)} class="axis" />
        {losses.length > 0 && (
          <text x={LEFT - 6} y={y(most) + 8} text-anchor="end">
            {most.toFixed(1)}
          </text>
        )}
        <text x={LEFT - 6} y={y(0)} text-anchor="end">
          0
        </text>
        <text x={LEFT} y={HEIGHT - 6}>
          step 1
        </text>
        <text x={WIDTH - RIGHT} y={HEIGHT - 6} text-anchor="end">
          {steps}
        </text>
        <polyline points={points} class="line" />
        {last !== undefined && <circle cx={x(losses.length)} cy={y(last)} r="3.5" class="dot" />}
      </svg>
      <figcaption>
        Loss{last === undefined ? '' : ` ${last.toFixed(2)} after step ${losses.length}`}
      </figcaption>
    </figure>
  );
}
