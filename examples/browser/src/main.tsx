/** The page: pictures with their captions, a place to draw, and training. */
import { render } from 'preact';
import { useEffect, useMemo, useState } from 'preact/hooks';
import { startWorker } from './client';
import { DrawingPad } from './drawing-pad';
import { backendLine, loadingLine } from './lines';
import type { Opened, Progress } from './messages';
import { Pictures } from './pictures';
import { choiceOfBackend } from './place';
import { Teach } from './teach';
import { usePictures } from './use-pictures';
import { useRun } from './use-run';
import './style.css';

type Status =
  | { phase: 'loading'; loaded: number; total: number }
  | { phase: 'ready'; opened: Opened }
  | { phase: 'failed'; message: string };

function Page() {
  const [status, setStatus] = useState<Status>({ phase: 'loading', loaded: 0, total: 0 });
  const listeners = useMemo(() => new Set<(event: Progress) => void>(), []);
  const client = useMemo(() => startWorker((event) => listeners.forEach((listen) => listen(event))), []);
  const pictures = usePictures(client);
  const run = useRun(client);

  useEffect(() => {
    listeners.add((event) => {
      if (event.kind === 'loading') setStatus({ phase: 'loading', ...event });
      else if (event.kind === 'captions') pictures.show(event.captions);
      else run.step(event);
    });
    client.call('open', { backend: choiceOfBackend(), folder: new URL('.', location.href).href }).then(
      (opened) => setStatus({ phase: 'ready', opened }),
      (error: Error) => setStatus({ phase: 'failed', message: error.message }),
    );
  }, []);

  const ready = status.phase === 'ready';
  return (
    <>
      <header>
        <h1>Teach BLIP-2 in this tab</h1>
        <p>
          A small BLIP-2 (6 million parameters, trained on drawings of emoji) describes pictures and learns
          your own words for them. Everything is computed in this tab: no picture and no word leaves your
          computer.
        </p>
        <p class={status.phase === 'failed' ? 'error' : 'soft'} role="status">
          {status.phase === 'loading' && loadingLine(status)}
          {ready && backendLine(status.opened)}
          {status.phase === 'failed' && status.message}
        </p>
      </header>
      <main>
        <Pictures ready={ready} {...pictures} />
        <DrawingPad add={pictures.add} />
        <Teach ready={ready} list={pictures.list} run={run} />
      </main>
      <footer class="soft">
        <p>
          <a href="./base/README.md">The model and what it was trained on</a>. Example drawings:{' '}
          <a href="https://github.com/googlefonts/noto-emoji">Noto Emoji</a> (Apache-2.0),{' '}
          <a href="https://github.com/microsoft/fluentui-emoji">Fluent Emoji</a> (MIT).{' '}
          <a href="./licences.txt">Licences of the program</a>
        </p>
      </footer>
    </>
  );
}

render(<Page />, document.body);
