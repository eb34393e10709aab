/** Checks a command that a document shows, without running it: the program exists, and so do its options. */
import { existsSync, readdirSync } from 'node:fs';
import { createProgram } from '@blip2/cli';
import { read, ROOT } from './blocks';

type Command = ReturnType<typeof createProgram>;

interface Manifest {
  scripts: Record<string, string>;
  nx?: { name: string; targets?: object };
}

const manifest = (folder: string) => JSON.parse(read(`${folder}package.json`)) as Manifest;
const targets = new Map(
  ['packages', 'tools'].flatMap((group) =>
    readdirSync(ROOT + group)
      .filter((name) => existsSync(`${ROOT}${group}/${name}/package.json`))
      .map((name) => {
        const { scripts, nx } = manifest(`${group}/${name}/`);
        return [name, Object.keys({ ...scripts, ...nx?.targets })] as const;
      }),
  ),
);

/** Programs that are not ours, whose arguments are not checked. */
const OTHERS =
  /^(cd|git|pip|apt-get|\.|tensorboard|gdb|grep|echo|rm|ls|head|tar|sh|docker|kubectl|\$\w+|aarch64-linux-gnu-g\+\+|qemu-aarch64)$/;

/**
 * What is wrong with a command, or undefined. Words in brackets are optional parts, `…` anything.
 * @param folder of the document, from which its paths and scripts may also start
 */
export function wrongWith(command: string, folder = ''): string | undefined {
  const words = wordsOf(command);
  const [program, ...rest] = words;
  if (program === 'sudo') return wrongWith(rest.join(' '), folder);
  if (program === 'mpirun' || program === 'srun') return wrongWith(launched(rest), folder);
  if (program === 'sbatch')
    return wrongFile(
      rest.filter((word) => !word.startsWith('--')),
      folder,
    );
  if (program === 'npx' && rest[0] === '--no-install') rest.shift();
  if (program === 'npx' && rest[0] === 'blip2') return wrongOptions(rest.slice(1));
  if (program === 'blip2') return wrongOptions(rest);
  if (program === 'npx' && rest[0] === 'nx') return wrongTarget(rest.slice(1));
  if (program === 'npx' && rest[0] === 'vitest') return undefined;
  if (program === 'npm') return wrongScript(rest, folder);
  if (program === 'node' || program === 'python') return wrongFile(rest, folder);
  return program === undefined || OTHERS.test(program) ? undefined : `unknown program "${program}"`;
}

/** What a launcher starts, such as `-n 2 npx blip2 fit`. */
const launched = (argv: string[]) => argv.slice(argv.indexOf('npx')).join(' ');

function wordsOf(command: string): string[] {
  const found = command.replace(/\[(-[^\]]*)\]/g, '$1').match(/(?:[^\s"']+|"[^"]*"|'[^']*')+/g) ?? [];
  const words = found.map((word) => word.replace(/["']/g, '')).filter((word) => word !== '…');
  while (/^\w+=/.test(words[0] ?? '')) words.shift();
  return words;
}

function wrongOptions(argv: string[]): string | undefined {
  let command: Command = createProgram();
  const path = ['blip2'];
  for (; ; path.push(argv.shift()!)) {
    const next = command.commands.find((child) => child.name() === argv[0]);
    if (!next) break;
    command = next;
  }
  if (path.length === 1 && argv[0] && !argv[0].startsWith('-')) return `no command "blip2 ${argv[0]}"`;
  // An option without its value, such as `--lr` in a sentence, is complete there.
  const checked = argv.filter((word) => !['--help', '--version'].includes(word));
  const complete = checked.length === 1 && checked[0].startsWith('--') ? [...checked, 'value'] : checked;
  try {
    const { unknown } = command.parseOptions(complete);
    const odd = unknown.filter((word) => word.startsWith('-') && word !== '-');
    return odd.length > 0 ? `${path.join(' ')} has no option ${odd.join(', ')}` : undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

function wrongTarget([verb, ...rest]: string[]): string | undefined {
  if (verb === 'run-many') {
    const target = rest[rest.indexOf('-t') + 1];
    return [...targets.values()].some((known) => known.includes(target)) ? undefined : `no target ${target}`;
  }
  if (verb === 'release') return undefined;
  const [project, target = verb] = rest[0]?.split(':') ?? [];
  return targets.get(project)?.includes(target) ? undefined : `nx has no ${project}:${target}`;
}

function wrongScript([verb, ...rest]: string[], folder: string): string | undefined {
  if (['ci', 'install', 'login', 'deprecate', 'rebuild'].includes(verb)) return undefined;
  const script = verb === 'run' ? rest.find((word) => !word.startsWith('-')) : verb;
  const places = rest.includes('-w') ? [`${rest[rest.indexOf('-w') + 1]}/`] : ['', folder];
  const found = places.some(
    (place) => existsSync(`${ROOT}${place}package.json`) && script! in manifest(place).scripts,
  );
  return found ? undefined : `no script "${script}" in package.json`;
}

function wrongFile(rest: string[], folder: string): string | undefined {
  const file = rest.find((word) => !word.startsWith('-'));
  if (rest[0]?.startsWith('-') || !file || /(^|\/)dist\//.test(file) || !file.includes('/')) return undefined;
  return existsSync(ROOT + file) || existsSync(ROOT + folder + file) ? undefined : `no file ${file}`;
}
