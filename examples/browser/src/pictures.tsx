/** The pictures: where they come from, and each with its captions. */
import { useEffect, useState } from 'preact/hooks';
import type { Picture, PictureList } from './use-pictures';

interface Drawing {
  file: string;
  words: string;
}

export function Pictures({ ready, list, add, remove, teach }: PictureList & { ready: boolean }) {
  const [over, setOver] = useState(false);
  useDrop(add, setOver);
  return (
    <section aria-labelledby="pictures">
      <h2 id="pictures">Pictures</h2>
      <p>
        Drop or paste pictures anywhere on this page, or choose them. Write captions for those that it shall
        learn; the others show what it makes of pictures that it was not taught.
      </p>
      <div class={over ? 'sources over' : 'sources'}>
        <label class="button">
          Choose pictures
          <input
            type="file"
            accept="image/*"
            multiple
            class="hidden"
            onChange={({ currentTarget: input }) => {
              add([...(input.files ?? [])]);
              input.value = '';
            }}
          />
        </label>
        <Drawings add={add} />
      </div>
      <ul class="cards">
        {list.map((picture) => (
          <Card key={picture.name} {...{ picture, remove, teach, ready }} />
        ))}
      </ul>
    </section>
  );
}

/** Files dropped or pasted anywhere on the page; without this, the browser would open them in its place. */
function useDrop(add: PictureList['add'], setOver: (over: boolean) => void): void {
  useEffect(() => {
    const ending = new AbortController();
    const listen = <Name extends 'dragover' | 'dragleave' | 'drop' | 'paste'>(
      name: Name,
      heard: (event: WindowEventMap[Name]) => void,
    ) => addEventListener(name, heard, { signal: ending.signal });
    listen('dragover', (event) => {
      if (!event.dataTransfer?.types.includes('Files')) return; // text is dragged between fields
      event.preventDefault();
      setOver(true);
    });
    listen('dragleave', () => setOver(false));
    listen('drop', (event) => {
      if (!event.dataTransfer?.files.length) return;
      event.preventDefault();
      setOver(false);
      add([...event.dataTransfer.files]);
    });
    listen('paste', ({ clipboardData }) => add([...(clipboardData?.files ?? [])]));
    return () => ending.abort();
  }, []);
}

/** A file of the drawings. @throws Error when the server does not have it */
async function fetched(file: string): Promise<Response> {
  const response = await fetch(`./drawings/${file}`);
  if (!response.ok) throw new Error(`the server answered ${response.status} ${response.statusText}`);
  return response;
}

/** Buttons that add a drawing of this site. */
function Drawings({ add }: Pick<PictureList, 'add'>) {
  const [drawings, setDrawings] = useState<Drawing[]>([]);
  const [error, setError] = useState<string>();
  const use = (file: string, then: (response: Response) => Promise<void>) =>
    void fetched(file)
      .then(then)
      .then(
        () => setError(undefined),
        ({ message }: Error) => setError(`${file} cannot be loaded: ${message}`),
      );
  useEffect(() => use('list.json', async (list) => setDrawings((await list.json()) as Drawing[])), []);
  const addDrawing = ({ file }: Drawing) =>
    use(file, async (response) => {
      const blob = await response.blob();
      add([new File([blob], file, { type: blob.type })]);
    });
  return (
    <>
      <span>or add</span>
      {drawings.map((drawing) => (
        <button key={drawing.file} type="button" onClick={() => addDrawing(drawing)}>
          {drawing.words}
        </button>
      ))}
      {error !== undefined && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
    </>
  );
}

function Card({
  picture: { name, url, base, now, error, taught },
  remove,
  teach,
  ready,
}: { picture: Picture; ready: boolean } & Pick<PictureList, 'remove' | 'teach'>) {
  const waiting = ready ? 'looking …' : 'waits for the model …';
  return (
    <li class="card">
      <img src={url} alt={name} />
      <dl>
        <dt>Before</dt>
        <dd>{base ?? (error === undefined ? waiting : '–')}</dd>
        {now !== undefined && (
          <>
            <dt>Now</dt>
            <dd class="now">{now}</dd>
          </>
        )}
      </dl>
      {error === undefined ? (
        <label>
          Teach
          <input
            type="text"
            value={taught}
            maxLength={200}
            placeholder="your caption"
            aria-label={`Caption to teach for ${name}`}
            onInput={({ currentTarget }) => teach(name, currentTarget.value)}
          />
        </label>
      ) : (
        <p class="error">{error}</p>
      )}
      <button type="button" class="plain" aria-label={`Remove ${name}`} onClick={() => remove(name)}>
        Remove
      </button>
    </li>
  );
}
