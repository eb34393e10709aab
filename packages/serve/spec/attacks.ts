/** Requests that are meant to do harm. */
import { chatBody, json, PICTURE } from './testing';

export const bomb = (width: number, height: number) => {
  const header = Buffer.from(PICTURE);
  header.writeUInt32BE(width, 16);
  header.writeUInt32BE(height, 20);
  return new Uint8Array(header);
};
export const upload = (body: Uint8Array<ArrayBuffer>, type = 'image/png'): RequestInit => ({
  method: 'POST',
  body,
  headers: { 'content-type': type },
});
export const withUrl = (url: string) =>
  json(chatBody({ messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url } }] }] }));

export const SVG =
  '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>';

/** A form of so many parts. */
export const parts = (count: number, more = '', content = 'a') =>
  new Uint8Array(
    Buffer.from(
      `${`--x\r\nContent-Disposition: form-data; name="a"${more}\r\n\r\n${content}\r\n`.repeat(count)}--x--\r\n`,
    ),
  );

/** Beginnings of pictures that claim to be huge. */
export function gif(width: number, height: number): Uint8Array<ArrayBuffer> {
  const bytes = Buffer.from(
    'GIF89a\0\0\0\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\0\0\0\0\0\x02\x02D\x01\0;',
    'latin1',
  );
  for (const at of [6, 24]) {
    bytes.writeUInt16LE(width, at);
    bytes.writeUInt16LE(height, at + 2);
  }
  return new Uint8Array(bytes);
}
export function webp(width: number, height: number): Uint8Array<ArrayBuffer> {
  const bytes = Buffer.alloc(30);
  bytes.write('RIFF');
  bytes.writeUInt32LE(22, 4);
  bytes.write('WEBPVP8X', 8);
  bytes.writeUInt32LE(10, 16);
  bytes.writeUIntLE(width - 1, 24, 3);
  bytes.writeUIntLE(height - 1, 27, 3);
  return new Uint8Array(bytes);
}
