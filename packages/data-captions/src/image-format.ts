/** The format of an image file, by its first bytes. */

export type ImageFormat = 'jpeg' | 'png' | 'webp' | 'gif' | 'tiff' | 'avif' | 'bmp';

/** The format, if it is a supported one. */
export function formatOf(bytes: Uint8Array): ImageFormat | undefined {
  const head = headOf(bytes);
  if (head.startsWith('\xff\xd8\xff')) return 'jpeg';
  if (head.startsWith('\x89PNG\r\n\x1a\n')) return 'png';
  if (head.startsWith('GIF87a') || head.startsWith('GIF89a')) return 'gif';
  if (head.startsWith('RIFF') && head.startsWith('WEBP', 8)) return 'webp';
  if (['II*\0', 'MM\0*', 'II+\0', 'MM\0+'].some((magic) => head.startsWith(magic))) return 'tiff';
  if (head.startsWith('ftyp', 4) && /avif|avis/.test(head.slice(8))) return 'avif';
  if (head.startsWith('BM')) return 'bmp';
  return undefined;
}

const headOf = (bytes: Uint8Array) => String.fromCharCode(...bytes.subarray(0, 48));

/** Formats that people have and that cannot be decoded: signature, its place, name. */
const OTHERS: [signature: string, at: number, name: string][] = [
  ...['heic', 'heix', 'heim', 'heis', 'hevc', 'hevx', 'mif1', 'msf1'].map(
    (brand): [string, number, string] => [`ftyp${brand}`, 4, 'a HEIC image'],
  ),
  ['\xff\x0a', 0, 'a JPEG XL image'],
  ['\0\0\0\x0cJXL ', 0, 'a JPEG XL image'],
  ['\0\0\0\x0cjP  ', 0, 'a JPEG 2000 image'],
  ['\xff\x4f\xff\x51', 0, 'a JPEG 2000 image'],
  ...['1', '2', '3', '4', '5', '6', '7'].flatMap((n) =>
    [' ', '\n', '#'].map((next): [string, number, string] => [`P${n}${next}`, 0, 'a PNM image']),
  ),
  ['8BPS', 0, 'a Photoshop file'],
  ['\0\0\x01\0', 0, 'an icon file'],
  ['DICM', 128, 'a DICOM file'],
  ['<svg', 0, 'an SVG drawing'],
  ['%PDF', 0, 'a PDF file'],
];

/** What to do with a file that is not a supported image. */
export function unsupported(bytes: Uint8Array): string {
  const expected = 'expected a JPEG, PNG, WebP, GIF, TIFF, AVIF or BMP image';
  const text = String.fromCharCode(...bytes.subarray(0, 160));
  const known = OTHERS.find(([signature, at]) => text.startsWith(signature, at))?.[2];
  if (known)
    return `${expected}, found ${known}; convert it to JPEG or PNG (ImageMagick: magick IN OUT.jpg), or remove its row from the data`;
  if (text.startsWith('version https://git-lfs'))
    return `${expected}, found a Git LFS pointer; download the file itself (git lfs pull)`;
  const found = bytes.length === 0 ? 'an empty file' : 'content of another kind';
  return `${expected}, found ${found}; convert it, or remove its row from the data`;
}
