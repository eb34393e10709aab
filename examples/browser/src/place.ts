/** Settings in the page's address. */
import type { BackendChoice } from './messages';

const CHOICES: readonly string[] = ['auto', 'webgpu', 'wasm', 'cpu'] satisfies BackendChoice[];

/** `?backend=wasm` computes on the processor even if there is a GPU. */
export function choiceOfBackend(): BackendChoice {
  const given = new URLSearchParams(location.search).get('backend') ?? 'auto';
  return CHOICES.includes(given) ? (given as BackendChoice) : 'auto';
}
