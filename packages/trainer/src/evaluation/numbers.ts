/** How scores are printed, the same in the terminal, the report and the documents: one decimal, shares with a per cent sign. */

/** `68.9 %`; `–` if it was not measured. */
export function percent(share: number | undefined): string {
  return share === undefined || Number.isNaN(share) ? '–' : `${(100 * share).toFixed(1)} %`;
}

/** A caption metric as papers print it, times 100 and without a sign, since CIDEr-D goes up to 1,000: `293.1`. */
export function times100(score: number | undefined): string {
  return score === undefined || Number.isNaN(score) ? '–' : (100 * score).toFixed(1);
}
