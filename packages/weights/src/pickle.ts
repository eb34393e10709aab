/**
 * A reader for pickles of dictionaries, numbers, texts and tensors, as `torch.save` writes them. It only builds values: a global
 * is passed to the caller's rules by name, and nothing is imported or run.
 * Opcodes: Python's pickletools; what PyTorch's own weights_only reader allows (torch/_weights_only_unpickler.py).
 */
import { WeightsError } from './errors';

/** A Python object: dictionaries are Maps, tuples and lists are arrays. */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | PickleValue[]
  | Map<PickleValue, PickleValue>
  | PickleGlobal
  | object;

/** A name that the pickle refers to, such as `torch FloatStorage`. */
export class PickleGlobal {
  constructor(readonly name: string) {}
}

export interface PickleRules {
  /** The value of `global(...args)`; undefined rejects the pickle. */
  call: (global: string, args: PickleValue[]) => PickleValue | undefined;
  /** The value of a persistent id, for PyTorch a storage; undefined rejects the pickle. */
  persistent: (id: PickleValue) => PickleValue | undefined;
}

/** A checkpoint has some dozen values per tensor. */
const MOST_VALUES = 5_000_000;
const MARK = Symbol('mark');
type Slot = PickleValue | typeof MARK;

/**
 * The value of a pickle.
 * @param where for messages
 * @throws WeightsError for truncated or malformed bytes, an unsupported opcode, and values that the rules reject
 */
export function readPickle(bytes: Uint8Array, rules: PickleRules, where: string): PickleValue {
  return new Reader(bytes, rules, where).run();
}

/** Python's opcodes by byte; each consumes its argument and changes the stack. */
const OPCODES: Record<number, (r: Reader) => void> = {
  0x80: (r) => r.protocol(),
  0x95: (r) => void r.take(8), // FRAME: only a hint
  0x28: (r) => r.push(MARK),
  0x30: (r) => void r.pop(), // POP
  0x4e: (r) => r.push(null),
  0x88: (r) => r.push(true),
  0x89: (r) => r.push(false),
  0x4b: (r) => r.push(r.uint(1)), // BININT1
  0x4d: (r) => r.push(r.uint(2)), // BININT2
  0x4a: (r) => r.push(r.uint(4) | 0), // BININT
  0x8a: (r) => r.push(long(r.take(r.uint(1)))), // LONG1
  0x47: (r) => r.push(r.float()),
  0x58: (r) => r.push(r.text(r.uint(4))), // BINUNICODE
  0x8c: (r) => r.push(r.text(r.uint(1))), // SHORT_BINUNICODE
  0x7d: (r) => r.push(new Map<PickleValue, PickleValue>()),
  0x5d: (r) => r.push([]),
  0x29: (r) => r.push([]), // EMPTY_TUPLE
  0x74: (r) => r.push(r.popMark()), // TUPLE
  0x85: (r) => r.push(r.popMany(1)),
  0x86: (r) => r.push(r.popMany(2)),
  0x87: (r) => r.push(r.popMany(3)),
  0x61: (r) => r.append(r.popMany(1)), // APPEND
  0x65: (r) => r.append(r.popMark()), // APPENDS
  0x73: (r) => r.setItems(r.popMany(2)), // SETITEM
  0x75: (r) => r.setItems(r.popMark()), // SETITEMS
  0x71: (r) => r.memorise(r.uint(1)), // BINPUT
  0x72: (r) => r.memorise(r.uint(4)), // LONG_BINPUT
  0x94: (r) => r.memorise(r.memo.size), // MEMOIZE
  0x68: (r) => r.push(r.recall(r.uint(1))), // BINGET
  0x6a: (r) => r.push(r.recall(r.uint(4))), // LONG_BINGET
  0x63: (r) => r.push(new PickleGlobal(`${r.line()} ${r.line()}`)), // GLOBAL
  0x93: (r) => r.stackGlobal(),
  0x52: (r) => r.reduce(),
  0x62: (r) => r.build(),
  0x51: (r) => r.persistent(),
};
const STOP = 0x2e;

class Reader {
  readonly memo = new Map<number, PickleValue>();
  private readonly stack: Slot[] = [];
  private at = 0;
  private pushed = 0;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly rules: PickleRules,
    private readonly where: string,
  ) {}

  run(): PickleValue {
    for (;;) {
      const opcode = this.uint(1);
      if (opcode === STOP) return this.pop();
      const act = Object.hasOwn(OPCODES, opcode) ? OPCODES[opcode] : undefined;
      if (!act)
        this.fail(
          `expected an opcode of plain data, found 0x${opcode.toString(16).padStart(2, '0')}; it may be a program, and is not run`,
        );
      act!(this);
    }
  }

  fail(what: string): never {
    throw new WeightsError(`${this.where}: byte ${this.at}: ${what}`);
  }

  take(count: number): Uint8Array {
    if (this.at + count > this.bytes.length) this.fail(`expected ${count} more bytes: the pickle is cut off`);
    return this.bytes.subarray(this.at, (this.at += count));
  }
  uint(size: 1 | 2 | 4): number {
    return this.take(size).reduceRight((value, byte) => value * 256 + byte, 0);
  }
  float(): number {
    const bytes = this.take(8);
    return new DataView(bytes.buffer, bytes.byteOffset, 8).getFloat64(0);
  }
  text(length: number): string {
    return decoder.decode(this.take(length));
  }
  line(): string {
    const end = this.bytes.indexOf(0x0a, this.at);
    if (end < 0 || end - this.at > 200) this.fail('expected a name that ends with a line break');
    return decoder.decode(this.take(end - this.at + 1)).trimEnd();
  }
  protocol(): void {
    const version = this.uint(1);
    if (version < 2 || version > 5) this.fail(`expected pickle protocol 2 … 5, found ${version}`);
  }

  push(value: Slot): void {
    if (++this.pushed > MOST_VALUES)
      this.fail(`expected the values of a checkpoint, found more than ${MOST_VALUES}`);
    this.stack.push(value);
  }
  pop(): PickleValue {
    const value = this.stack.pop();
    if (value === undefined || value === MARK) this.fail('expected a value on the stack');
    return value as PickleValue;
  }
  top(): PickleValue {
    const value = this.pop();
    this.push(value);
    return value;
  }
  popMany(count: number): PickleValue[] {
    return Array.from({ length: count }, () => this.pop()).reverse();
  }
  popMark(): PickleValue[] {
    const mark = this.stack.lastIndexOf(MARK);
    if (mark < 0) this.fail('expected a mark on the stack');
    return this.stack.splice(mark).slice(1) as PickleValue[];
  }
  memorise(index: number): void {
    this.memo.set(index, this.top());
  }
  recall(index: number): PickleValue {
    const value = this.memo.get(index);
    if (value === undefined) this.fail(`nothing was memorised as ${index}`);
    return value as PickleValue;
  }

  append(values: PickleValue[]): void {
    const target = this.top();
    if (!Array.isArray(target)) this.fail('expected a list to append to');
    for (const value of values) (target as PickleValue[]).push(value);
  }
  setItems(items: PickleValue[]): void {
    const target = this.top();
    if (!(target instanceof Map) || items.length % 2 !== 0)
      this.fail('expected a dictionary and pairs to put into it');
    for (let i = 0; i < items.length; i += 2)
      (target as Map<PickleValue, PickleValue>).set(items[i]!, items[i + 1]!);
  }
  stackGlobal(): void {
    const [module, name] = this.popMany(2);
    if (typeof module !== 'string' || typeof name !== 'string') this.fail('expected the name of a global');
    this.push(new PickleGlobal(`${module as string} ${name as string}`));
  }
  reduce(): void {
    const [callee, args] = this.popMany(2);
    if (!(callee instanceof PickleGlobal) || !Array.isArray(args))
      this.fail('expected a global and its arguments');
    const { name } = callee as PickleGlobal;
    const value = this.rules.call(name, args as PickleValue[]);
    if (value === undefined)
      this.fail(
        `refers to ${name.replace(' ', '.')}, which is neither a tensor nor plain data; it is not run`,
      );
    this.push(value as PickleValue);
  }
  /** Ignores the state of an object; that of a state dict is its `_metadata`. */
  build(): void {
    const state = this.pop();
    if (!(this.top() instanceof Map) || !(state instanceof Map))
      this.fail('expected the state of a dictionary');
  }
  persistent(): void {
    const value = this.rules.persistent(this.pop());
    if (value === undefined) this.fail('expected the persistent id of a storage');
    this.push(value as PickleValue);
  }
}

const decoder = new TextDecoder('utf-8');

/** Little-endian two's complement. */
function long(bytes: Uint8Array): number | bigint {
  let value = bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  if (bytes.length > 0 && bytes.at(-1)! >= 128) value -= 1n << BigInt(8 * bytes.length);
  return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}
