import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { startBeams, stepBeams } from './beam-search';
import type { BeamOptions, BeamState } from './beam-search';
import { applyRules, argMax, logSoftmax, topK } from './score-rules';
import type { ScoreRules } from './score-rules';

const none: ScoreRules = {
  repetition_penalty: 1,
  no_repeat_ngram_size: 0,
  min_new_tokens: 0,
  eos_token_id: [0],
};
const scored = (rules: Partial<ScoreRules>, prompt: number[], fresh: number[], start = 0) => {
  const scores = Float32Array.of(1, -1, 2, -2);
  applyRules(scores, { prompt, start, fresh }, { ...none, ...rules });
  return [...scores];
};

describe('score rules', () => {
  it('repetition_penalty divides positive and multiplies negative scores of seen tokens, once, ignoring padding', () => {
    expect(scored({ repetition_penalty: 2 }, [3, 1, 1], [2], 1)).toEqual([1, -2, 1, -2]);
  });

  it('no_repeat_ngram_size bans tokens that would repeat an n-gram', () => {
    expect(scored({ no_repeat_ngram_size: 2 }, [1, 2, 0, 1], [])).toEqual([1, -1, -Infinity, -2]);
    expect(scored({ no_repeat_ngram_size: 3 }, [1, 2, 0, 1], [])).toEqual([1, -1, 2, -2]);
    expect(scored({ no_repeat_ngram_size: 1 }, [1], [3])).toEqual([1, -Infinity, 2, -Infinity]);
    expect(scored({ no_repeat_ngram_size: 9 }, [1], [3])).toEqual([1, -1, 2, -2]);
  });

  it('min_new_tokens bans the end token until then', () => {
    expect(scored({ min_new_tokens: 2 }, [1], [1])[0]).toBe(-Infinity);
    expect(scored({ min_new_tokens: 2 }, [1], [1, 1])[0]).toBe(1);
  });

  const row = fc.array(fc.integer({ min: -9, max: 9 }), { minLength: 1, maxLength: 40 });

  it('topK is the start of a stable descending sort, argMax its first element', () => {
    fc.assert(
      fc.property(row, fc.integer({ min: 1, max: 50 }), (scores, k) => {
        const sorted = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]);
        expect(topK(scores, k)).toEqual(sorted.slice(0, k));
        expect(argMax(Float32Array.from(scores))).toBe(sorted[0]);
      }),
    );
  });

  it('logSoftmax is finite and sums to one for large scores', () => {
    const p = logSoftmax(Float32Array.of(1e4, 1e4 - 1, -1e4));
    expect([...p.map(Math.exp)].reduce((a, b) => a + b, 0)).toBeCloseTo(1, 6);
    expect(p[0] - p[1]).toBeCloseTo(1, 3);
  });
});

describe('beam search', () => {
  /** Any next-token distribution over {end, 1, 2} that depends on the whole history. */
  const model = (seed: number) => (ids: readonly number[]) => {
    const h = ids.reduce((a, id) => (a * 31 + id * 17 + 7) % 1009, seed);
    return logSoftmax(Float32Array.of(h % 5, (h >> 2) % 7, (h >> 4) % 6));
  };

  const ended = (o: BeamOptions) => (ids: readonly number[]) =>
    o.eos_token_id.includes(ids[ids.length - 1]) || ids.length >= o.max_new_tokens;

  function search(next: (ids: readonly number[]) => Float32Array, o: BeamOptions): readonly number[] {
    let state: BeamState = startBeams(o.num_beams);
    while (!state.done)
      state = stepBeams(
        state,
        state.running.map(({ ids }) => next(ids)),
        o,
        ended(o),
      );
    return state.finished[0].ids;
  }

  /** The best text of all, by trying every one. */
  function best(next: (ids: readonly number[]) => Float32Array, o: BeamOptions) {
    const texts: { ids: number[]; score: number }[] = [];
    const walk = (ids: number[], score: number): void => {
      if (ended(o)(ids)) {
        texts.push({ ids, score: score / ids.length ** o.length_penalty });
      } else next(ids).forEach((p, id) => walk([...ids, id], score + p));
    };
    walk([], 0);
    return texts.sort((a, b) => b.score - a.score)[0].ids;
  }

  it('finds the best text of all with enough beams for every text', () => {
    for (let seed = 0; seed < 200; seed++) {
      const o = {
        num_beams: 27,
        length_penalty: 0,
        early_stopping: false,
        eos_token_id: [0],
        max_new_tokens: 3,
      };
      expect(search(model(seed), o)).toEqual(best(model(seed), o));
    }
  });

  it('has distinct beams with descending scores', () => {
    const o = {
      num_beams: 3,
      length_penalty: 1,
      early_stopping: false,
      eos_token_id: [0],
      max_new_tokens: 6,
    };
    let state = startBeams(3);
    for (let step = 0; step < 4 && !state.done; step++) {
      state = stepBeams(
        state,
        state.running.map(({ ids }) => model(5)(ids)),
        o,
        ended(o),
      );
      const real = state.running.filter(({ score }) => score > -1e8);
      expect(new Set(real.map(({ ids }) => ids.join())).size).toBe(real.length);
      expect(real.map(({ score }) => score)).toEqual(real.map(({ score }) => score).sort((a, b) => b - a));
    }
  });
});
