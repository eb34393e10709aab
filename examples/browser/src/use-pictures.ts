/** The pictures of the page and their captions. */
import { useRef, useState } from 'preact/hooks';
import type { Client } from './client';

export interface Picture {
  name: string;
  /** of the file, for <img> */
  url: string;
  /** caption of the base; undefined until there is one */
  base?: string;
  /** caption of the model in training, or trained */
  now?: string;
  error?: string;
  /** what the visitor wants it to be */
  taught: string;
}

export interface PictureList {
  list: readonly Picture[];
  add(files: readonly File[]): void;
  remove(name: string): void;
  teach(name: string, taught: string): void;
  show(captions: readonly (readonly [name: string, caption: string])[]): void;
}

export function usePictures(client: Client): PictureList {
  const [list, setList] = useState<readonly Picture[]>([]);
  const names = useRef(new Set<string>());
  const change = (name: string, fields: Partial<Picture>) =>
    setList((all) => all.map((one) => (one.name === name ? { ...one, ...fields } : one)));
  return {
    list,
    add(files) {
      for (const file of files) {
        const name = freeName(file.name, names.current);
        setList((all) => [...all, { name, url: URL.createObjectURL(file), taught: '' }]);
        client.call('add', { name, file }).then(
          ({ base, now }) => change(name, { base, now }),
          (error: Error) => change(name, { error: error.message }),
        );
      }
    },
    remove(name) {
      URL.revokeObjectURL(list.find((one) => one.name === name)?.url ?? '');
      setList((all) => all.filter((one) => one.name !== name));
      client.call('remove', { name }).catch(() => undefined); // without a model or a worker there is nothing to remove
    },
    teach: (name, taught) => change(name, { taught }),
    show: (captions) => captions.forEach(([name, now]) => change(name, { now })),
  };
}

/** Names are not used twice, even of pictures that were removed. */
function freeName(name: string, taken: Set<string>): string {
  let free = name;
  for (let n = 2; taken.has(free); n++) free = `${name} (${n})`;
  taken.add(free);
  return free;
}
