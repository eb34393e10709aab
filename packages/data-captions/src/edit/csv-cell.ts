/** Replaces one cell of a CSV record; all other characters stay. */

/** Start and end of each cell in the text of one record, quotes included. */
export function cellPlaces(record: string, delimiter: string): [start: number, end: number][] {
  const places: [number, number][] = [];
  for (let start = 0; ;) {
    let end = start;
    if (record[start] === '"') {
      end++;
      while (end < record.length && !(record[end] === '"' && record[end + 1] !== '"'))
        end += record[end] === '"' ? 2 : 1;
      end++;
    }
    while (end < record.length && record[end] !== delimiter) end++;
    places.push([start, end]);
    if (end >= record.length) return places;
    start = end + 1;
  }
}

/** A text as a cell; in quotes where it needs them, and where the cell it replaces had them. */
export function csvCell(text: string, delimiter: string, before: string): string {
  const quoted = before.startsWith('"') || text.includes(delimiter) || /["\r\n]|^\s|\s$/.test(text);
  return quoted ? `"${text.replaceAll('"', '""')}"` : text;
}
