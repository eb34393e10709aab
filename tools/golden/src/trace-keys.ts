/** Records the random keys that a forward pass uses. */
import type * as Nn from '@blip2/nn';
import type { Key, Linear } from '@blip2/nn';

export interface KeyTrace {
  /** The key of every random operation, in order. */
  keys: string[];
  /** The linear maps that were called without a key. */
  withoutKey: Linear[];
}

/** `@blip2/nn` with random operations that record their keys in `trace`; for `vi.mock`. */
export function traceKeys(nn: typeof Nn, trace: KeyTrace): typeof Nn {
  const note = (key: Key | undefined) => key && trace.keys.push(`${key.k0}:${key.k1}`);
  const noteLinear = (p: Linear, key: Key | undefined) => {
    if (!note(key)) trace.withoutKey.push(p);
  };
  return {
    ...nn,
    linear: (p, x, key) => {
      noteLinear(p, key);
      return nn.linear(p, x, key);
    },
    activatedLinear: (activation, p, x, key) => {
      noteLinear(p, key);
      return nn.activatedLinear(activation, p, x, key);
    },
    residualLinear: (p, x, residual, o) => {
      noteLinear(p, o?.key);
      note(o?.dropout?.key);
      return nn.residualLinear(p, x, residual, o);
    },
    attention: (q, k, v, o) => {
      note(o.dropout?.key);
      return nn.attention(q, k, v, o);
    },
    dropout: (x, rate, key) => {
      note(key);
      return nn.dropout(x, rate, key);
    },
  };
}
