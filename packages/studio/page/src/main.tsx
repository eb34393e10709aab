import { render } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import 'uplot/dist/uPlot.min.css';
import '@blip2/trainer/page/report.css';
import './studio.css';
import { usePlace } from './place';
import { CompareView } from './views/compare';
import { DataView } from './views/data';
import { PlanView } from './views/plan';
import { RunView } from './views/run';
import { RunsView } from './views/runs';
import { TryView } from './views/try';

const VIEWS = [
  ['data', 'Data'],
  ['plan', 'Plan'],
  ['runs', 'Runs'],
  ['try', 'Try'],
] as const;

function App() {
  const { view, name, query } = usePlace();
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  const title = VIEWS.find(([id]) => id === view)?.[1] ?? (name || view);
  useEffect(() => {
    document.title = `${title} – blip2 studio`;
    // who follows a link by keyboard goes on in what it opened
    if (!first.current) main.current?.focus();
    first.current = false;
  }, [view, name]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current?.focus())}>
        Skip to content
      </a>
      <header class="top">
        <b>blip2 studio</b>
        <nav aria-label="Views">
          {VIEWS.map(([id, label]) => (
            <a key={id} href={`#/${id}`} aria-current={isIn(view, id) ? 'page' : undefined}>
              {label}
            </a>
          ))}
        </nav>
      </header>
      <main ref={main} tabIndex={-1} key={view + name}>
        {view === 'plan' ? (
          <PlanView />
        ) : view === 'runs' && name !== '' ? (
          <RunView name={name} />
        ) : view === 'runs' ? (
          <RunsView />
        ) : view === 'try' ? (
          <TryView />
        ) : view === 'compare' ? (
          <CompareView names={query.getAll('run')} />
        ) : (
          <DataView />
        )}
      </main>
    </>
  );
}

const isIn = (view: string, id: string) => view === id || (id === 'runs' && view === 'compare');

document.documentElement.classList.add('js');
render(<App />, document.body);
