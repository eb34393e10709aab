import { expect, it } from 'vitest';
import { onDisk } from './disk';
import { RunFolderError } from './folder';

it.each([
  'ENOSPC',
  'EIO',
  'Unknown system error -116',
  'Unknown system error -117',
  'Unknown system error -122',
])('a file that cannot be written because of %s is an error of the run folder', async (code) => {
  const fails = () => Promise.reject(Object.assign(new Error(`${code}: write`), { code }));
  await expect(onDisk('/run', fails)).rejects.toThrow(RunFolderError);
  await expect(onDisk('/run', fails)).rejects.toThrow(`a file of the run cannot be written: ${code}: write`);
});

it('any other error stays as it is', async () => {
  const error = Object.assign(new Error('x'), { code: 'ERR_INVALID_ARG_TYPE' });
  await expect(onDisk('/run', () => Promise.reject(error))).rejects.toBe(error);
});
