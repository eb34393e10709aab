/** Where the page is (the address after #), and what it remembers. */
import { useEffect, useState } from 'preact/hooks';

export interface Place {
  view: string;
  /** the name after the view, such as that of a run */
  name: string;
  query: URLSearchParams;
}

function read(): Place {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [view, ...name] = path.split('/');
  return {
    view: view || 'data',
    name: decoded(name.join('/')),
    query: new URLSearchParams(query),
  };
}

/** An address that was typed by hand may not be one that can be decoded. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function usePlace(): Place {
  const [place, setPlace] = useState(read);
  useEffect(() => {
    const changed = () => setPlace(read());
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  return place;
}

export const go = (hash: string) => void (location.hash = hash);

/** A value that stays when the page is loaded again. */
export function useKept<T>(key: string, first: T): [T, (value: T) => void] {
  const [value, setValue] = useState<T>(() => kept<T>(key) ?? first);
  return [
    value,
    (next) => {
      localStorage.setItem(`studio.${key}`, JSON.stringify(next));
      setValue(next);
    },
  ];
}

export function kept<T>(key: string): T | undefined {
  try {
    return JSON.parse(localStorage.getItem(`studio.${key}`) ?? 'null') as T | undefined;
  } catch {
    return undefined;
  }
}

/** A record without one of its fields. */
export function without<T extends object, K extends keyof T>(record: T, name: K): Omit<T, K> {
  const copy: Partial<T> = { ...record };
  delete copy[name];
  return copy as Omit<T, K>;
}
