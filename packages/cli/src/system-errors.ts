/** Names of system errors that Node prints as "Unknown system error -116". */
import { platform } from 'node:os';

/** Errors of file systems that libuv does not know, by their numbers on Linux and macOS. Source: errno(3). */
const NAMES: Partial<Record<NodeJS.Platform, Record<number, string>>> = {
  linux: {
    35: 'EDEADLK: resource deadlock avoided',
    37: 'ENOLCK: no locks available',
    52: 'EBADE: invalid exchange with the file server',
    62: 'ETIME: timer expired',
    67: 'ENOLINK: link to the file server has been severed',
    70: 'ECOMM: communication error on send',
    74: 'EBADMSG: bad message, the file system is damaged',
    77: 'EBADFD: file descriptor in bad state',
    116: 'ESTALE: stale file handle',
    117: 'EUCLEAN: structure needs cleaning, the file system is damaged',
    121: 'EREMOTEIO: remote I/O error',
    122: 'EDQUOT: disk quota exceeded',
    123: 'ENOMEDIUM: no medium found',
    124: 'EMEDIUMTYPE: wrong medium type',
    126: 'ENOKEY: required key not available',
    127: 'EKEYEXPIRED: key has expired',
    128: 'EKEYREVOKED: key has been revoked',
    129: 'EKEYREJECTED: key was rejected by service',
    131: 'ENOTRECOVERABLE: state not recoverable',
    133: 'EHWPOISON: memory page has a hardware error',
  },
  darwin: {
    11: 'EDEADLK: resource deadlock avoided',
    69: 'EDQUOT: disk quota exceeded',
    70: 'ESTALE: stale file handle',
    77: 'ENOLCK: no locks available',
    82: 'EPWROFF: device power is off',
    83: 'EDEVERR: device error',
  },
};

/** A message with the names of errors that Node has none for; numbers that are not in the table stay. */
export function withErrorNames(message: string, os: NodeJS.Platform = platform()): string {
  const names = NAMES[os] ?? {};
  return message.replace(
    /Unknown system error -(\d+)(?:: Unknown system error -\1(?!\d))?/g,
    (whole, errno: string) => names[Number(errno)] ?? whole,
  );
}
