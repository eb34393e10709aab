/** A picture: the base beside what runs made of it, word by word, and where each word looks. */
import { useEffect, useState } from 'preact/hooks';
import type { RunSummary, TriedWord } from '../../../src/api';
import { HeatMap } from '../parts/heat-map';
import { Failure, Field } from '../parts/parts';
import type { TriedText } from '../parts/tried';
import { useTried } from '../parts/tried';
import { useLoaded } from '../server';

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
  const [looked, setLooked] = useState<Looked>();
  const { texts, busy, error, ask, stop } = useTried();
  const url = useObjectUrl(file);
  const names = picked ?? runs.slice(0, 1).map(({ name }) => name);
  const toggle = (name: string) =>
    setPicked(names.includes(name) ? names.filter((one) => one !== name) : [...names, name]);
  const write = (picture: File) => {
    setLooked(undefined);
    ask(picture, names, question);
  };
  const choose = (files: FileList | null | undefined) => {
    const picture = files?.[0];
    if (!picture) return;
    setFile(picture);
    if (names.length > 0) write(picture);
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
        onSubmit={(event) => (event.preventDefault(), file && write(file))}
      >
        <RunChoice runs={runs} names={names} toggle={toggle} />
        <Field label="Question" hint="empty: a caption">
          <input value={question} onInput={(e) => setQuestion(e.currentTarget.value)} />
        </Field>
        <button class="main" disabled={!file || names.length === 0}>
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
      {busy && <Writing isLoading={texts.every(({ text }) => text === '')} stop={stop} />}
      <Failure text={error} />
      {url && (
        <div class="tried">
          <HeatMap url={url} map={looked?.word.map} word={looked?.text} />
          <div>
            {texts.map((text) => (
              <Text key={text.name} text={text} busy={busy} looked={looked?.word} look={setLooked} />
            ))}
            {texts.length > 0 && <About />}
          </div>
        </div>
      )}
    </>
  );
}

interface ChoiceProps {
  runs: readonly RunSummary[];
  names: readonly string[];
  toggle: (name: string) => void;
}

const RunChoice = ({ runs, names, toggle }: ChoiceProps) => (
  <fieldset>
    <legend>Runs, beside their base</legend>
    {runs.map(({ name, score }) => (
      <label key={name}>
        <input type="checkbox" checked={names.includes(name)} onChange={() => toggle(name)} /> {name}{' '}
        {score && <small class="soft">{score}</small>}
      </label>
    ))}
  </fieldset>
);

const Writing = ({ isLoading, stop }: { isLoading: boolean; stop: () => void }) => (
  <p class="progress" role="status">
    <span class="spin" aria-hidden="true" />{' '}
    {isLoading
      ? 'The first picture also loads the model.'
      : 'Writing. Where each word looks comes after the text.'}{' '}
    <button onClick={stop}>Stop</button>
  </p>
);

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

const percent = (p: number) => `${(100 * p).toFixed(p < 0.995 ? 0 : 1)} %`;

const Word = ({ word: { text, probability } }: { word: TriedWord }) => (
  <>
    <bdi>{text}</bdi> <small>{percent(probability)}</small>
  </>
);

interface TextProps {
  text: TriedText;
  /** whether texts are still written */
  busy: boolean;
  looked: TriedWord | undefined;
  look: (looked: Looked) => void;
}

function Text({ text: { name, text, words, done }, busy, looked, look }: TextProps) {
  const isGrowing = busy && !done;
  return (
    <section class="tried-text">
      <h2>{name}</h2>
      <p class="said" dir="auto" aria-live="polite" aria-busy={isGrowing}>
        {text || (isGrowing ? '…' : done ? '(nothing)' : '(stopped)')}
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
                <Word word={word} />
              </button>
            ) : (
              <span>
                <Word word={word} />
              </span>
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
