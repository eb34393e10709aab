/** A picture with a map drawn over it. */
import { useEffect, useRef } from 'preact/hooks';

interface Props {
  url: string;
  /** of the patches, row by row of a square */
  map: readonly number[] | undefined;
  word: string | undefined;
}

export function HeatMap({ url, map, word }: Props) {
  const grid = map ? Math.sqrt(map.length) : 1; // patches on each side
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const box = canvas.current;
    const pen = box?.getContext('2d');
    if (!box || !pen) return;
    [box.width, box.height] = [grid, grid];
    const pixels = pen.createImageData(grid, grid);
    map?.forEach((value, i) => {
      // from a dark veil to clear, so that what was looked at is seen as it is; orange marks the strongest
      pixels.data.set(value > 0.85 ? [255, 140, 0, 70] : [10, 12, 20, Math.round(200 * (1 - value))], 4 * i);
    });
    pen.putImageData(pixels, 0, 0);
  }, [map, grid]);
  return (
    <figure class="heat">
      <div>
        <img src={url} alt="The picture that is tried" />
        <canvas ref={canvas} hidden={!map} aria-hidden="true" />
      </div>
      <figcaption aria-live="polite">
        {map && (
          <>
            “<bdi>{word}</bdi>” looks most at {placeOf(map, grid)}
          </>
        )}
      </figcaption>
    </figure>
  );
}

/** In words, for those who cannot see it. */
function placeOf(map: readonly number[], grid: number): string {
  const most = map.indexOf(Math.max(...map));
  const third = (at: number) => Math.min(2, Math.floor((3 * at) / grid));
  const row = ['top', 'middle', 'bottom'][third(Math.floor(most / grid))];
  const column = ['left', 'centre', 'right'][third(most % grid)];
  return row === 'middle' && column === 'centre' ? 'the centre' : `the ${row} ${column}`;
}
