/** Attention and its gradients against a scalar reference. */
import * as reference from './scalar-reference';
import { addon, atEveryLevel, expectClose, misaligned, numbers, run } from './spec-fixtures';

atEveryLevel('attention', (at) => {
  const checkAttention = (
    size: [B: number, Tq: number, Tk: number, H: number, d: number],
    o: Partial<reference.AttentionCase>,
  ) => {
    const [B, Tq, Tk, H, d] = size;
    const D = H * d;
    const c: reference.AttentionCase = {
      ...{
        B,
        Tq,
        Tk,
        D,
        H,
        scale: d ** -0.5,
        causal: false,
        dropout: 0,
        key0: 11,
        key1: 12,
        keyMask: null,
      },
      ...{ q: misaligned(numbers(B * Tq * D, 6), 1), k: numbers(B * Tk * D, 7), v: numbers(B * Tk * D, 8) },
      ...o,
    };
    const dout = numbers(B * Tq * D, 9);
    const want = reference.attention(c, dout);
    const args = [
      B,
      Tq,
      Tk,
      D,
      H,
      c.scale,
      c.causal,
      c.dropout,
      c.key0,
      c.key1,
      c.q,
      c.k,
      c.v,
      c.keyMask,
    ] as const;
    const [out, lse] = run((make) => addon.attention(...args, make(B * Tq * D), make(B * H * Tq)));
    const where = `[${size}] causal=${c.causal} dropout=${c.dropout}`;
    expectClose(out!, want.out, 3e-6, `out ${where}`);
    expectClose(lse!, want.lse, 3e-6, `lse ${where}`);
    const [dq, dk, dv] = run((make) =>
      addon.attentionGrad(...args, out!, lse!, dout, make(B * Tq * D), make(B * Tk * D), make(B * Tk * D)),
    );
    expectClose(dq!, want.dq, 1e-5, `dq ${where}`);
    expectClose(dk!, want.dk, 1e-5, `dk ${where}`);
    expectClose(dv!, want.dv, 1e-5, `dv ${where}`);
  };

  at('attention: sizes, causal, dropout', () => {
    for (const [Tq, Tk, d] of [
      [1, 1, 1],
      [1, 65, 8],
      [3, 5, 2],
      [17, 17, 16],
      [46, 46, 32],
      [33, 64, 11],
      [65, 65, 5],
    ] as const)
      for (const causal of [false, true])
        for (const dropout of [0, 0.3]) checkAttention([2, Tq, Tk, 3, d], { causal, dropout });
  });

  at('attention: several blocks of queries', () => {
    checkAttention([1, 300, 300, 1, 8], { causal: true });
    checkAttention([1, 150, 700, 1, 3], { dropout: 0.1 });
  });

  at('attention: hidden keys, and queries that see none', () => {
    const keyMask = (B: number, Tk: number) => numbers(B * Tk, 10).map((x) => Number(x > -0.3));
    checkAttention([3, 9, 20, 2, 4], { keyMask: keyMask(3, 20) });
    checkAttention([3, 20, 20, 2, 4], { keyMask: keyMask(3, 20), causal: true, dropout: 0.2 });
    checkAttention([2, 5, 5, 2, 4], {
      keyMask: Float32Array.of(0, 0, 1, 1, 1, 0, 0, 0, 0, 0),
      causal: true,
    });
    checkAttention([2, 9, 4, 1, 4], { causal: true });
  });
});
