import { describe, expect, it } from 'vitest';
import { wholeModules } from './whole-modules';

const names = [
  'query_tokens',
  'qformer.layer.0.a.weight',
  'qformer.layer.0.a.bias',
  'qformer.layer.1.a.weight',
  'proj.weight',
  'proj.bias',
  'lm.weight',
];
const split = (trained: string[], adapted: string[] = []) => wholeModules(names, new Set(trained), adapted);

describe('wholeModules', () => {
  it('takes the topmost complete module; a bare parameter is left over', () => {
    expect(split(names.filter((name) => !name.startsWith('lm')))).toEqual({
      modules: ['qformer', 'proj'],
      bare: ['query_tokens'],
    });
  });

  it('descends where a part is frozen or adapted, and never takes a list of layers', () => {
    const qformer = names.filter((name) => name.startsWith('qformer'));
    expect(split(qformer.slice(0, 2))).toEqual({ modules: ['qformer.layer.0'], bare: [] });
    expect(split(qformer, ['qformer.layer.1.a'])).toEqual({
      modules: ['qformer.layer.0'],
      bare: ['qformer.layer.1.a.weight'],
    });
    const extra = [...names, 'qformer.frozen.weight'];
    expect(wholeModules(extra, new Set(qformer), [])).toEqual({
      modules: ['qformer.layer.0', 'qformer.layer.1'],
      bare: [],
    });
    expect(split(['proj.bias'])).toEqual({ modules: [], bare: ['proj.bias'] });
  });

  it('avoids a name with which another module ends, because PEFT would wrap both', () => {
    const ambiguous = ['norm.weight', 'post_norm.weight', 'lm.weight'];
    expect(wholeModules(ambiguous, new Set(['norm.weight']), [])).toEqual({
      modules: [],
      bare: ['norm.weight'],
    });
  });
});
