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
  it('finds the topmost complete modules, and parameters outside them', () => {
    expect(split(names.filter((name) => !name.startsWith('lm')))).toEqual({
      modules: ['qformer', 'proj'],
      bare: ['query_tokens'],
    });
  });

  it('descends into partly frozen or adapted modules, and never returns a list of layers', () => {
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

  it('avoids a name that is the end of another module name, because PEFT would wrap both', () => {
    const ambiguous = ['norm.weight', 'post_norm.weight', 'lm.weight'];
    expect(wholeModules(ambiguous, new Set(['norm.weight']), [])).toEqual({
      modules: [],
      bare: ['norm.weight'],
    });
  });
});
