/** A page that was made of runs, in a frame that can run only its own script and reach nothing of ours. */
import { useEffect, useState } from 'preact/hooks';
import { Failure } from './parts';

export function Frame({ title, src }: { title: string; src: string }) {
  const [error, setError] = useState<string>();
  const [ready, setReady] = useState(false);
  // a frame cannot show why it has no page
  useEffect(() => {
    setReady(false);
    fetch(src).then(
      async (answer) => (answer.ok ? setReady(true) : setError(await answer.text())),
      (problem: Error) => setError(problem.message),
    );
  }, [src]);
  return (
    <>
      <Failure text={error} />
      {ready && (
        <iframe
          class="report"
          title={title}
          src={src}
          sandbox="allow-scripts allow-popups"
          allow="clipboard-write"
        />
      )}
      {ready && (
        <p>
          <a href={src} target="_blank" rel="noreferrer">
            Open it in a tab of its own
          </a>
        </p>
      )}
    </>
  );
}
