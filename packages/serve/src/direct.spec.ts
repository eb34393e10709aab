/** Forms whose header names more than one boundary. */
import { expect, it } from 'vitest';
import { readDirect } from './direct';
import type { RemoteOptions } from './remote';

const B = '-'.repeat(30) + 'x';
const part = `--${B}\r\nContent-Disposition: form-data; name="a"\r\n\r\na\r\n`;
const file = `--${B}\r\nContent-Disposition: form-data; name="f"; filename="f.png"\r\n\r\npicture\r\n`;
const read = (type: string, text: string) =>
  readDirect(
    new Request('http://localhost/caption', { method: 'POST', headers: { 'content-type': type } }),
    Buffer.from(`${text}--${B}--\r\n`),
    {} as RemoteOptions,
  );
const TYPES = [
  `multipart/form-data; boundary=${B}`,
  `multipart/form-data; boundary="${B}"`,
  `multipart/form-data; xboundary=a; boundary=${B}`,
  `multipart/form-data; a="; boundary=b"; boundary=${B}`,
  `Multipart/Form-Data; BOUNDARY=${B}; boundary=b`,
];

it.each(TYPES)('counts the parts of %s', async (type) => {
  await expect(read(type, part.repeat(100) + file)).rejects.toThrow('at most 64 parts');
  const { picture, fields } = await read(type, part + file);
  expect([Buffer.from(picture).toString(), fields]).toEqual(['picture', { a: 'a' }]);
});

it('refuses two types in one header', async () => {
  const type = `multipart/form-data; boundary=b, multipart/form-data; boundary=${B}`;
  await expect(read(type, part.repeat(100) + file)).rejects.toThrow('a damaged one');
});
