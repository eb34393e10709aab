/** A path: typed, or chosen in a dialog that lists folders. */
import { useState } from 'preact/hooks';
import type { FileEntry, Listing, StudioInfo } from '../../../src/api';
import { address, useLoaded } from '../server';
import { Failure, Field, useDialog } from './parts';

interface Props {
  label: string;
  hint?: string;
  value: string;
  wanted: FileEntry['kind'];
  onChange: (path: string) => void;
}

export function PathPicker({ label, hint, value, wanted, onChange }: Props) {
  const { dialog, show, close } = useDialog();
  const [open, setOpen] = useState(false);
  const pick = (path: string) => {
    onChange(path);
    close();
  };
  return (
    <div class="picker">
      <Field label={label} hint={hint}>
        <input value={value} spellcheck={false} onInput={(e) => onChange(e.currentTarget.value)} />
      </Field>
      <button
        type="button"
        aria-label={`Browse for ${label.toLowerCase()}`}
        onClick={() => (setOpen(true), show())}
      >
        Browse
      </button>
      <dialog ref={dialog} class="files" aria-label={label} onClose={() => setOpen(false)}>
        {open && <Files wanted={wanted} pick={pick} close={close} />}
      </dialog>
    </div>
  );
}

/** The first folder has no name of its own. */
const whole = (path: string, root = path) => (path === '.' ? root : path);

const KINDS: Record<FileEntry['kind'], string> = { folder: '', data: 'data', model: 'model', run: 'run' };

function Files({
  wanted,
  pick,
  close,
}: {
  wanted: FileEntry['kind'];
  pick: (path: string) => void;
  close: () => void;
}) {
  const [path, setPath] = useState('.');
  const { value: listing, error } = useLoaded<Listing>(address('files', { path }));
  const { value: studio } = useLoaded<StudioInfo>('/api/studio');
  const roots = listing?.parent === undefined && studio ? studio.folders : [];
  const isFile = (name: string) => /\.\w+$/.test(name);
  return (
    <>
      <p class="mono">{whole(listing?.path ?? path, studio?.folders[0])}</p>
      <Failure text={error} />
      <ul>
        {listing?.parent !== undefined && (
          <li>
            <button onClick={() => setPath(listing.parent!)}>↑ up</button>
          </li>
        )}
        {roots.length > 1 &&
          roots.map((root) => (
            <li key={root}>
              <button onClick={() => setPath(root)}>{root}</button>
            </li>
          ))}
        {listing?.entries.map((entry) => (
          <li key={entry.path}>
            {isFile(entry.name) && entry.kind === 'data' ? (
              <span>{entry.name}</span>
            ) : (
              <button onClick={() => setPath(entry.path)}>{entry.name}/</button>
            )}
            <small class="soft">{KINDS[entry.kind]}</small>
            {(entry.kind === wanted || (wanted === 'data' && entry.kind === 'folder')) && (
              <button aria-label={`Choose ${entry.name}`} onClick={() => pick(entry.path)}>
                Choose
              </button>
            )}
          </li>
        ))}
      </ul>
      {listing && listing.more > 0 && <p class="soft">and {listing.more} more; type the path</p>}
      <p>
        {wanted === 'data' && listing && (
          <button onClick={() => pick(listing.path)}>Choose this folder</button>
        )}{' '}
        <button onClick={close}>Cancel</button>
      </p>
    </>
  );
}
