/**
 * Drafts of the next tokens from texts like those expected, such as the captions of the training data: `draft` of `generate`. A draft
 * continues the longest end of the text so far that is in them, each time with its commonest next token.
 */

/** Most tokens of the end of a text that are looked up. */
const LONGEST = 4;
/** Most tokens of a draft: a pass over four positions takes little longer than over one, and half of the drafts are wrong by then. */
const MOST = 3;
const BEGINNING = -1;

/** @param texts token ids, without start token; each ends with `end` */
export function draftsOf(
  texts: Iterable<readonly number[]>,
  end: number,
): (fresh: readonly number[]) => number[] {
  const next = commonest(texts, end);
  return (fresh) => {
    const ids = [BEGINNING, ...fresh];
    const draft: number[] = [];
    while (draft.length < MOST) {
      const id = following(next, ids);
      if (id === undefined) break;
      draft.push(id);
      if (id === end) break;
      ids.push(id);
    }
    return draft;
  };
}

type Next = ReadonlyMap<string, number>;

/** By the ids of an end of a text. */
function commonest(texts: Iterable<readonly number[]>, end: number): Next {
  const counts = new Map<string, Map<number, number>>();
  for (const text of texts) {
    const ids = [BEGINNING, ...text, end];
    for (let i = 1; i < ids.length; i++)
      for (let n = 1; n <= Math.min(LONGEST, i); n++) {
        const key = ids.slice(i - n, i).join();
        const of = counts.get(key) ?? new Map<number, number>();
        of.set(ids[i]!, (of.get(ids[i]!) ?? 0) + 1);
        counts.set(key, of);
      }
  }
  return new Map([...counts].map(([key, of]) => [key, [...of].sort((a, b) => b[1] - a[1])[0]![0]]));
}

function following(next: Next, ids: readonly number[]): number | undefined {
  for (let n = Math.min(LONGEST, ids.length); n > 0; n--) {
    const id = next.get(ids.slice(-n).join());
    if (id !== undefined) return id;
  }
  return undefined;
}
