/** Results that fit into a conversation. */

const MOST_ITEMS = 20;
const MOST_CHARACTERS = 2000;

/** The same value with long lists and texts cut; what is left out is counted in their place. */
export function bounded(value: unknown): unknown {
  if (typeof value === 'string')
    return value.length > MOST_CHARACTERS
      ? `${value.slice(0, MOST_CHARACTERS)} … and ${value.length - MOST_CHARACTERS} more characters`
      : value;
  if (Array.isArray(value)) {
    const shown = value.slice(0, MOST_ITEMS).map(bounded);
    return value.length > MOST_ITEMS ? [...shown, `… and ${value.length - MOST_ITEMS} more`] : shown;
  }
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, bounded(one)]));
}
