/** A plugin of typedoc: pages are named after their first heading, and modules after what users import. */
import { Converter, ReflectionKind } from 'typedoc';

const HEADING = /^# (.+)\n/m;

const headingOf = (content) => content.map(({ text }) => HEADING.exec(text)?.[1]).find(Boolean);

export function load(app) {
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    // typedoc prints the project's name itself
    for (const part of project.readme ?? []) part.text = part.text.replace(HEADING, '');
  });

  app.converter.on(Converter.EVENT_CREATE_DOCUMENT, (context, document) => {
    document.name = headingOf(document.content)?.replace(/`/g, '') ?? document.name;
  });
  app.converter.on(Converter.EVENT_CREATE_DECLARATION, (context, reflection) => {
    if (reflection.kind !== ReflectionKind.Module) return;
    const [, name, door] = /^([^/]+)\/src(?:\/(.*))?$/.exec(reflection.name) ?? [];
    if (name) reflection.name = `@blip2/${name}${door && door !== 'index' ? `/${door}` : ''}`;
  });
}
