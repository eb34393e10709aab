/** A picture: the base beside what runs made of it, word by word, and where each word looks. */
import { useEffect, useState } from 'preact/hooks';
import type { RunSummary, TriedText, TriedWord, TryResult } from '../../../src/api';
import { HeatMap } from '../parts/heat-map';
import { Failure, Field, useAction } from '../parts/parts';
import { post, useLoaded } from '../server';

interface Looked {
  text: string;
  word: TriedWord;
}

export function TryView() {
  const { value: all, error: unlisted } = useLoaded<RunSummary[]>('/api/runs');
  const runs = all?.filter(({ tryable }) => tryable) ?? [];
  const [picked, setPicked] = useState<string[]>();
  const [file, setFile] = useState<File>();
  const [question, setQuestion] = useState('');
  const [result, setResult] = useState<TryResult>();
  const [looked, setLooked] = useState<Looked>();
  const { busy, error, act } = useAction();
  const url = useObjectUrl(file);
  const names = picked ?? runs.slice(0, 1).map(({ name }) => name);
  const toggle = (name: string) =>
    setPicked(names.includes(name) ? names.filter((one) => one !== name) : [...names, name]);
  const ask = (picture: File) =>
    act(async () => {
      setResult(undefined);
      setLooked(undefined);
      if (picture.size > MOST_BYTES)
        throw new Error('expected a picture of at most 32 MB, found a larger file');
      const query = new URLSearchParams(names.map((name): [string, string] => ['run', name]));
      if (question !== '') query.set('question', question);
      setResult(await post<TryResult>(`try?${query.toString()}`, picture));
    });
  const choose = (files: FileList | null | undefined) => {
    const picture = files?.[0];
    if (!picture) return;
    setFile(picture);
    if (names.length > 0) ask(picture);
  };
  return (
    <>
      <h1>Try</h1>
      <Failure text={unlisted} />
      {all && runs.length === 0 && (
        <p>
          No run has a result yet. <a href="#/plan">Plan one</a>.
        </p>
      )}
      <form
        hidden={runs.length === 0}
        class="row"
        onSubmit={(event) => (event.preventDefault(), file && ask(file))}
      >
        <fieldset>
          <legend>Runs, beside their base</legend>
          {runs.map(({ name, score }) => (
            <label key={name}>
              <input type="checkbox" checked={names.includes(name)} onChange={() => toggle(name)} /> {name}{' '}
              {score && <small class="soft">{score}</small>}
            </label>
          ))}
        </fieldset>
        <Field label="Question" hint="empty: a caption">
          <input value={question} onInput={(e) => setQuestion(e.currentTarget.value)} />
        </Field>
        <button class="main" disabled={busy || !file || names.length === 0}>
          Write again
        </button>
      </form>
      <label
        hidden={runs.length === 0}
        class="drop"
        onDragOver={(event) => event.preventDefault()}
        onDrop={(event) => (event.preventDefault(), choose(event.dataTransfer?.files))}
      >
        <span>Drop a picture here, or choose one</span>
        <input type="file" accept="image/*" onChange={(e) => choose(e.currentTarget.files)} />
      </label>
      {busy && (
        <p class="progress" role="status">
          <span class="spin" aria-hidden="true" /> The first picture also loads the model.
        </p>
      )}
      <Failure text={error} />
      {url && (
        <div class="tried">
          <HeatMap url={url} grid={result?.grid ?? 1} map={looked?.word.map} word={looked?.text} />
          <div>
            {result?.texts.map((text) => (
              <Text key={text.name} text={text} looked={looked?.word} look={setLooked} />
            ))}
            {result && <About />}
          </div>
        </div>
      )}
    </>
  );
}

function useObjectUrl(file: File | undefined): string | undefined {
  const [url, setUrl] = useState<string>();
  useEffect(() => {
    if (!file) return setUrl(undefined);
    const made = URL.createObjectURL(file);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [file]);
  return url;
}

/** The server refuses larger ones, in the middle of the upload. */
const MOST_BYTES = 32 << 20;

const percent = (p: number) => `${(100 * p).toFixed(p < 0.995 ? 0 : 1)} %`;

interface TextProps {
  text: TriedText;
  looked: TriedWord | undefined;
  look: (looked: Looked) => void;
}

function Text({ text: { name, text, words }, looked, look }: TextProps) {
  return (
    <section class="tried-text">
      <h2>{name}</h2>
      <p class="said" dir="auto">
        {text || '(nothing)'}
      </p>
      <ul class="words" aria-label={`Words of ${name}`}>
        {words.map((word, i) => (
          <li key={i}>
            {word.map ? (
              <button
                aria-pressed={looked === word}
                title="where it looks"
                onClick={() => look({ text: word.text, word })}
                onMouseEnter={() => look({ text: word.text, word })}
                onFocus={() => look({ text: word.text, word })}
              >
                <bdi>{word.text}</bdi> <small>{percent(word.probability!)}</small>
              </button>
            ) : (
              <bdi>{word.text}</bdi>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}

const About = () => (
  <details>
    <summary>What is drawn over the picture</summary>
    <p>
      Under each word is its probability, given the picture and the words before it. Choose a word to see
      where it looks: the language model reads the picture as a few rows, one for each query of the Q-Former.
      Each row in turn is replaced by the mean of all, and the drop of the word's log-probability is that
      query's share in it. Drawn are the places that these queries attend to (cross-attention of the Q-Former,
      the mean over its layers and heads), weighted by their shares. It shows what the model needed for the
      word, not that it is right. InstructBLIP has no such picture, because its queries depend on the
      question.
    </p>
  </details>
);
