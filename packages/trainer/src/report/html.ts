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

export function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ESCAPES[character]);
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
