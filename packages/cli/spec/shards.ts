/** Writes shards of WebDataset for specs. */
import { writeFile } from 'node:fs/promises';

/** A tar file (ustar) with KEY.png for each picture; a key with an ending is the whole name. */
export async function writeShard(
  file: string,
  pictures: (readonly [key: string, bytes: Buffer])[],
): Promise<void> {
  const members = pictures.map(([key, bytes]) => {
    const padded = Buffer.alloc(Math.ceil(bytes.length / 512) * 512);
    bytes.copy(padded);
    return Buffer.concat([headerOf(key.includes('.') ? key : `${key}.png`, bytes.length), padded]);
  });
  await writeFile(file, Buffer.concat([...members, Buffer.alloc(1024)]));
}

function headerOf(name: string, size: number): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write('0000644\0', 100);
  header.write(`${size.toString(8).padStart(11, '0')}\0`, 124);
  header.write('00000000000\0', 136);
  header.write('        0', 148); // a checksum of spaces, until it is known, and the type of a file
  header.write('ustar\x0000', 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return header;
}
