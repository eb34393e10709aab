/** HTML from template strings in which everything is escaped unless it is HTML already. */

export class Html {
  constructor(readonly text: string) {}
  toString(): string {
    return this.text;
  }
}

type Content = string | number | Html | undefined | false | Content[];

const ESCAPES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Control characters except line feed and tab, and marks that reorder the text around them. */
const CONTROL = /[\u202a-\u202e\u2066-\u2069]|(?![\n\t])\p{Cc}/gu;

/** Text as HTML; control characters are written as `\u202e` and so on. */
export function escape(text: string): string {
  return text
    .replace(CONTROL, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
    .replace(/[&<>"']/g, (character) => ESCAPES[character]);
}

/** The tag of all markup here: strings and numbers are escaped, lists joined, `undefined` and `false` left out. */
export function html(fixed: TemplateStringsArray, ...values: Content[]): Html {
  return new Html(String.raw({ raw: fixed }, ...values.map(render)));
}

function render(content: Content): string {
  if (content === undefined || content === false) return '';
  if (Array.isArray(content)) return content.map(render).join('');
  return content instanceof Html ? content.text : escape(String(content));
}
