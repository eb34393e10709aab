/** Runs side by side: the page of `blip2 compare`. */
import { Frame } from '../parts/frame';

export function CompareView({ names }: { names: string[] }) {
  const query = names.map((name) => `run=${encodeURIComponent(name)}`).join('&');
  return (
    <>
      <h1>Compare {names.length} runs</h1>
      <p>
        <a href="#/runs">Choose others</a>
      </p>
      <Frame title={`Comparison of ${names.join(', ')}`} src={`/api/comparison?${query}`} />
    </>
  );
}
