/** A place to draw a picture by pen, finger or mouse. */
import { useEffect, useRef, useState } from 'preact/hooks';
import type { PictureList } from './use-pictures';

const SIDE = 256;
const COLOURS = {
  black: '#1d2126',
  red: '#d7263d',
  orange: '#f46036',
  yellow: '#f6c90e',
  green: '#1b998b',
  blue: '#2f5bd0',
  brown: '#7b4f2c',
  white: '#ffffff',
};

export function DrawingPad({ add }: Pick<PictureList, 'add'>) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const last = useRef<[x: number, y: number] | undefined>(undefined);
  const count = useRef(0);
  const [colour, setColour] = useState(COLOURS.black);
  const [width, setWidth] = useState(14);

  const clear = () => {
    const context = canvas.current!.getContext('2d')!;
    context.fillStyle = '#fff';
    context.fillRect(0, 0, SIDE, SIDE);
  };
  useEffect(clear, []);

  const line = (event: PointerEvent, begins: boolean) => {
    if (!begins && !last.current) return;
    const box = canvas.current!.getBoundingClientRect();
    const to: [number, number] = [
      ((event.clientX - box.left) * SIDE) / box.width,
      ((event.clientY - box.top) * SIDE) / box.height,
    ];
    if (begins) canvas.current!.setPointerCapture(event.pointerId);
    const context = canvas.current!.getContext('2d')!;
    Object.assign(context, { lineCap: 'round', lineWidth: width, strokeStyle: colour });
    context.beginPath();
    context.moveTo(...(begins ? to : last.current!));
    context.lineTo(...to);
    context.stroke();
    last.current = to;
  };
  const done = () => {
    canvas.current!.toBlob((blob) => {
      if (blob) add([new File([blob], `drawing ${++count.current}.png`, { type: 'image/png' })]);
    }, 'image/png');
  };

  return (
    <section aria-labelledby="draw">
      <h2 id="draw">Draw one</h2>
      <div class="pad">
        <canvas
          ref={canvas}
          width={SIDE}
          height={SIDE}
          role="img"
          aria-label="Place to draw, with a pointer"
          onPointerDown={(event) => line(event, true)}
          onPointerMove={(event) => line(event, false)}
          onPointerUp={() => (last.current = undefined)}
          onPointerCancel={() => (last.current = undefined)}
        />
        <div class="tools">
          <fieldset>
            <legend>Colour</legend>
            {Object.entries(COLOURS).map(([name, value]) => (
              <label key={name} class="swatch">
                <input
                  type="radio"
                  name="colour"
                  checked={colour === value}
                  onChange={() => setColour(value)}
                />
                <svg viewBox="0 0 20 20" aria-hidden="true">
                  <circle cx="10" cy="10" r="9" fill={value} />
                </svg>
                {name}
              </label>
            ))}
          </fieldset>
          <label>
            Width of the pen
            <input
              type="range"
              min={4}
              max={48}
              value={width}
              onInput={({ currentTarget }) => setWidth(Number(currentTarget.value))}
            />
          </label>
          <div class="row">
            <button type="button" onClick={done}>
              Add this drawing
            </button>
            <button type="button" onClick={clear}>
              Clear
            </button>
          </div>
        </div>
      </div>
    </section>
  );
}
