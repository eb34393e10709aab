/**
 * Beam search over one row of a batch, on the host, as a pure function from one state to the next. Reference:
 * `GenerationMixin._beam_search` of transformers 5; its batch items do not influence each other, so each is searched alone.
 */
import { candidates as candidateCount } from './generate-options';
import { topK } from './score-rules';

export interface BeamOptions {
  num_beams: number;
  /** A finished beam's score is its summed log-probability divided by (new tokens, end token included) ^ length_penalty. */
  length_penalty: number;
  /**
   * true: stop at num_beams finished beams. false: go on while the best running beam, ending here, could still beat the
   * worst of them. "never": while it could do so at any length.
   */
  early_stopping: boolean | 'never';
  eos_token_id: readonly number[];
  max_new_tokens: number;
}

interface Hypothesis {
  ids: readonly number[];
  score: number;
}

export interface BeamState {
  /** num_beams hypotheses to extend, best first. */
  running: readonly Hypothesis[];
  /** At most num_beams finished ones, best first; their ids include the end token. */
  finished: readonly Hypothesis[];
  done: boolean;
  /** For each running hypothesis the one of the step before that it extends. */
  parents: readonly number[];
}

/** Score of excluded beams, as in the reference: every real score is higher. */
const NEVER = -1e9;

/** State before the first token: all beams have the same prompt, so only the first may be extended. */
export function startBeams(num_beams: number): BeamState {
  const running = Array.from({ length: num_beams }, (_, i) => ({ ids: [], score: i === 0 ? 0 : NEVER }));
  return { running, finished: [], done: false, parents: running.map((_, i) => i) };
}

/** One more token: `logProbs[i]` [V] belongs to `running[i]`; `ends` returns whether a text ends with its last token. */
export function stepBeams(
  state: BeamState,
  logProbs: readonly Float32Array[],
  o: BeamOptions,
  ends: (ids: readonly number[]) => boolean,
): BeamState {
  const length = state.running[0].ids.length + 1;
  const candidates = bestExtensions(state, logProbs, candidateCount(o)).map((c) => ({
    ...c,
    ends: ends(c.ids),
  }));
  const going = candidates.map((c) => (c.ends ? c.score + NEVER : c.score));
  const next = topK(going, o.num_beams).map((i) => ({ ...candidates[i], score: going[i] }));

  const ended = candidates.slice(0, o.num_beams).filter((c) => c.ends);
  const scored = ended.map(({ ids, score }) => ({ ids, score: score / length ** o.length_penalty }));
  const all = [...state.finished, ...scored];
  const finished = topK(
    all.map((h) => h.score),
    o.num_beams,
  ).map((i) => all[i]);
  return {
    running: next.map(({ ids, score }) => ({ ids, score })),
    finished,
    done: candidates.every((c) => c.ends) || isDecided(next[0].score, length, finished, o),
    parents: next.map(({ parent }) => parent),
  };
}

function bestExtensions({ running }: BeamState, logProbs: readonly Float32Array[], count: number) {
  const extensions = running.flatMap(({ ids, score }, parent) =>
    topK(logProbs[parent], count).map((id) => ({ ids, id, parent, score: score + logProbs[parent][id] })),
  );
  return topK(
    extensions.map((extension) => extension.score),
    count,
  ).map((i) => {
    const { ids, id, parent, score } = extensions[i];
    return { ids: [...ids, id], parent, score };
  });
}

/** Whether the search can stop, by the reference's rule, which estimates the best running beam's final score. */
function isDecided(best: number, length: number, finished: readonly Hypothesis[], o: BeamOptions): boolean {
  if (finished.length < o.num_beams) return false;
  if (o.early_stopping === true) return true;
  const ending = o.early_stopping === 'never' && o.length_penalty > 0 ? o.max_new_tokens : length;
  return best / ending ** o.length_penalty <= finished[finished.length - 1].score;
}
