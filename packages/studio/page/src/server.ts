/** Requests to the server, and its events. */
import { useEffect, useRef, useState } from 'preact/hooks';

const token = document.querySelector<HTMLMetaElement>('meta[name=studio-token]')?.content ?? '';

/** @throws Error with the server's text */
async function answer(response: Response): Promise<Response> {
  if (response.ok) return response;
  throw new Error((await response.text()) || `the server answered ${response.status}`);
}

async function reach(path: string, init?: RequestInit): Promise<Response> {
  const response = await fetch(path, init).catch(() => {
    throw new Error('studio does not answer; is the command still running?');
  });
  return answer(response);
}

export const address = (path: string, query: Record<string, string | number | undefined>): string => {
  const given = Object.entries(query).flatMap(([key, value]) =>
    value === undefined || value === '' ? [] : [[key, String(value)]],
  );
  return `/api/${path}?${new URLSearchParams(given).toString()}`;
};

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await (await reach(path, { signal })).json()) as T;
}

const headers = { 'x-studio-token': token };

export async function post<T>(path: string, body: unknown = {}): Promise<T> {
  const response = await reach(`/api/${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
  return (response.status === 204 ? undefined : await response.json()) as T;
}

/** Calls `on` with each line of JSON of the answer, as they come. */
export async function postLines<E>(
  path: string,
  body: Blob,
  signal: AbortSignal,
  on: (event: E) => void,
): Promise<void> {
  const response = await reach(`/api/${path}`, { method: 'POST', headers, body, signal });
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    const lines = (rest + next.value).split('\n');
    rest = lines.pop()!;
    for (const line of lines) on(JSON.parse(line) as E);
  }
}

export const remove = (path: string) => reach(`/api/${path}`, { method: 'DELETE', headers });

/** Something that is loaded, and again when `address` changes or `again` is called. */
export function useLoaded<T>(from: string | undefined) {
  const [state, setState] = useState<{ value?: T; error?: string; loading: boolean }>({ loading: false });
  const [count, setCount] = useState(0);
  useEffect(() => {
    if (from === undefined) return setState({ loading: false });
    const abort = new AbortController();
    setState((old) => ({ ...old, loading: true }));
    get<T>(from, abort.signal).then(
      (value) => setState({ value, loading: false }),
      (error: Error) => abort.signal.aborted || setState({ error: error.message, loading: false }),
    );
    return () => abort.abort();
  }, [from, count]);
  return { ...state, again: () => setCount((n) => n + 1) };
}

/** Calls `on` with each event of an address, until it returns true or the address changes. */
export function useEvents<E>(from: string | undefined, on: (event: E) => boolean | void): void {
  const latest = useRef(on);
  latest.current = on;
  useEffect(() => {
    if (from === undefined) return;
    const source = new EventSource(from);
    source.onmessage = ({ data }) => {
      if (latest.current(JSON.parse(data as string) as E)) source.close();
    };
    return () => source.close();
  }, [from]);
}
