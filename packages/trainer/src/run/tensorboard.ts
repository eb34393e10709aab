/**
 * TensorBoard event files: TFRecord frames (length, masked CRC-32C of the length, data, masked CRC-32C of the data) around
 * `tensorflow.Event` messages. Formats: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto,
 * tensorflow/core/framework/summary.proto. CRC-32C: Castagnoli polynomial, reflected 0x82f63b78.
 */

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc >>> 0;
});

/** CRC-32C of some bytes. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** TFRecord's masking: it keeps CRCs of data that contains CRCs effective. */
function masked(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

function frame(data: Uint8Array): Buffer {
  const out = Buffer.alloc(12 + data.length + 4);
  out.writeBigUInt64LE(BigInt(data.length));
  out.writeUInt32LE(masked(out.subarray(0, 8)), 8);
  out.set(data, 12);
  out.writeUInt32LE(masked(data), 12 + data.length);
  return out;
}

/** The first record of every event file. @param wallTime seconds since 1970 */
export function fileVersion(wallTime: number): Buffer {
  return frame(Buffer.concat([double(1, wallTime), bytes(3, Buffer.from('brain.Event:2'))]));
}

/** One event with several scalars, without values that are not numbers. @param wallTime seconds since 1970 */
export function scalars(values: Record<string, unknown>, step: number, wallTime: number): Buffer {
  const entries = Object.entries(values).filter(([, value]) => typeof value === 'number');
  const summary = entries.map(([tag, value]) =>
    bytes(1, Buffer.concat([bytes(1, Buffer.from(tag)), float(2, value as number)])),
  );
  return event(summary, step, wallTime);
}

/** One event with a text, in Markdown. @param wallTime seconds since 1970 */
export function text(tag: string, markdown: string, step: number, wallTime: number): Buffer {
  const DT_STRING = 7;
  const plugin = bytes(1, bytes(1, Buffer.from('text'))); // SummaryMetadata.plugin_data.plugin_name
  const shape = bytes(2, bytes(2, varint(1, 1))); // TensorShapeProto: one dimension of size 1
  const tensor = Buffer.concat([varint(1, DT_STRING), shape, bytes(8, Buffer.from(markdown))]);
  const value = Buffer.concat([bytes(1, Buffer.from(tag)), bytes(8, tensor), bytes(9, plugin)]);
  return event([bytes(1, value)], step, wallTime);
}

function event(values: Buffer[], step: number, wallTime: number): Buffer {
  return frame(Buffer.concat([double(1, wallTime), varint(2, step), bytes(5, Buffer.concat(values))]));
}

// protobuf's wire format: a field is its number and wire type, then its value

function key(field: number, wireType: number): Buffer {
  return Buffer.from([(field << 3) | wireType]);
}

function base128(value: number): Buffer {
  const out: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) out.push((value % 128) | 128);
  return Buffer.from([...out, value]);
}

function varint(field: number, value: number): Buffer {
  return Buffer.concat([key(field, 0), base128(value)]);
}

function bytes(field: number, value: Uint8Array): Buffer {
  return Buffer.concat([key(field, 2), base128(value.length), value]);
}

function double(field: number, value: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeDoubleLE(value);
  return Buffer.concat([key(field, 1), out]);
}

function float(field: number, value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeFloatLE(value);
  return Buffer.concat([key(field, 5), out]);
}
