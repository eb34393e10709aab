/**
 * Mutations for `--sensitivity`, one small error each. They need no code in the packages: a mutation replaces a kernel in
 * tfjs's registry or changes loaded data.
 */
import type { Blip2, GenerateOptions } from '@blip2/blip2';
import { fold, normal, replaceLeaves, rngKey, slice, concat, takeApart, tensor } from '@blip2/nn';
import type { Packing, Tensor } from '@blip2/nn';
import * as tf from '@tensorflow/tfjs-core';
import type { InputsJson, TokensJson } from './case-file';
import type { Changes } from './run-case';

type Inputs = Record<string, tf.Tensor>;
type Attrs = Record<string, number | boolean | string | number[] | Packing | undefined>;
/** Called instead of a kernel; `run` is the correct one. */
type Wrong = (
  run: (inputs: Inputs, attrs: Attrs) => tf.Tensor[],
  inputs: Inputs,
  attrs: Attrs,
) => tf.Tensor[];

export interface Mutation {
  name: string;
  kernels?: Record<string, Wrong>;
  changes?: Changes;
}

/** Replaces kernels of the active backend by wrong ones; returns a function that restores them. */
export function injectKernels(kernels: Record<string, Wrong>): () => void {
  const backendName = tf.getBackend();
  const right = Object.keys(kernels).map((name) => tf.getKernel(name, backendName));
  const together = takeApart(backendName); // or the wrong kernels would not be called by layers
  for (const { kernelName, kernelFunc } of right) {
    tf.unregisterKernel(kernelName, backendName);
    tf.registerKernel({
      kernelName,
      backendName,
      kernelFunc: ({ inputs, attrs, backend }) => {
        const run = (i: Inputs, a: Attrs) => {
          const out = kernelFunc({ inputs: i as never, attrs: a as never, backend });
          return (Array.isArray(out) ? out : [out]) as tf.Tensor[];
        };
        const out = kernels[kernelName](run, inputs as Inputs, (attrs ?? {}) as Attrs);
        return out.length === 1 ? out[0] : out;
      },
    });
  }
  return () => {
    for (const config of right) {
      tf.unregisterKernel(config.kernelName, backendName);
      tf.registerKernel(config);
    }
    together();
  };
}

/** The kernel with other attributes. */
const attributes =
  (change: (attrs: Attrs, inputs: Inputs) => Attrs): Wrong =>
  (run, inputs, attrs) =>
    run(inputs, { ...attrs, ...change(attrs, inputs) });

/** The same change for attention and its gradient. */
const attentions = (wrong: Wrong) => ({ NnAttention: wrong, NnAttentionGrad: wrong, ...packed(wrong) });
/** The same for attention of packed rows, which the loss has. */
const packed = (wrong: Wrong) => ({ NnPackedAttention: wrong, NnPackedAttentionGrad: wrong });
/** … and for attention with a cache. */
const allAttentions = (wrong: Wrong) => ({ ...attentions(wrong), NnPagedAttention: wrong });

const tanhGelu: Wrong = (_, { x }) => [
  tf.tidy(() => {
    const inner = tf.mul(Math.sqrt(2 / Math.PI), tf.add(x, tf.mul(0.044715, tf.pow(x, 3))));
    return tf.mul(tf.mul(0.5, x), tf.add(1, tf.tanh(inner)));
  }),
];

/** The same mutation for an activation in the epilogue of a linear layer, before the residual is added. */
const tanhGeluOfLinear: Wrong = (run, inputs, attrs) => {
  if (attrs.activation !== 'gelu') return run(inputs, attrs);
  const { residual, ...rest } = inputs;
  return tf.tidy(() => {
    const [linear] = run(rest, { ...attrs, activation: undefined });
    const x = tf.engine().makeTensorFromTensorInfo(linear);
    const [y] = tanhGelu(run, { x }, {});
    return [residual ? tf.add(y, residual) : y];
  });
};

/** eps of the layer norms that have `from`. */
const eps = (from: number, to: number) => ({
  NnLayerNorm: attributes(({ eps }) => ({ eps: eps === from ? to : eps })),
});

/** A masked key after the last one moves the causal border, so that each query attends to the next key too. */
const lookAhead: Wrong = (run, inputs, attrs) => {
  if (!attrs.causal) return run(inputs, attrs);
  const [B, T, D] = inputs.k.shape as [number, number, number];
  const longer = (x: tf.Tensor) => tf.concat([x, tf.zeros([B, 1, D])], 1);
  const keyMask = tf.concat([inputs.keyMask ?? tf.ones([B, T]), tf.zeros([B, 1])], 1);
  return run({ ...inputs, k: longer(inputs.k), v: longer(inputs.v), keyMask }, attrs);
};

/** Packed attention with another packing. */
function repacked(change: (packing: Packing) => Partial<Packing>): Wrong {
  return attributes(({ packing }) => ({
    packing: { ...(packing as Packing), ...change(packing as Packing) },
  }));
}

/** Packed attention in which each text has the picture after its own. */
const nextPicture = repacked(({ prefixes, pictures }) => ({
  pictures: pictures.map((p) => (p + 1) % prefixes),
}));

/** … in which all texts but the first begin one position early, so that a text ends before its last position. */
const early = repacked(({ starts }) => ({
  starts: starts.map((at, b) => (b > 0 && b < starts.length - 1 ? at - 1 : at)),
}));

const withoutMask: Wrong = (run, inputs, attrs) => {
  const rest = { ...inputs };
  delete rest.keyMask;
  return run(rest, attrs);
};

/** A model whose leaf `name` is another tensor. */
const leaf =
  (name: string, change: (t: Tensor) => Tensor) =>
  (model: Blip2): Blip2 => ({
    ...model,
    params: replaceLeaves(model.params, (at, t) => (at === name ? change(t) : t)),
  });

/** Rows of a table moved down by n; the first n rows occur twice. */
const shifted = (t: Tensor, n: number) => {
  const [rows, width] = t.shape;
  return concat([slice(t, [0, 0], [n, width]), slice(t, [0, 0], [rows - n, width])], 0);
};

const textConfig =
  (change: object) =>
  (model: Blip2): Blip2 => ({
    ...model,
    config: { ...model.config, text_config: { ...model.config.text_config, ...change } },
  });

type TextConfigOf<M extends string> = Extract<Blip2['config']['text_config'], { model_type: M }>;

const t5Config =
  (change: (c: TextConfigOf<'t5'>) => object) =>
  (model: Blip2): Blip2 => {
    const { text_config: c } = model.config;
    return c.model_type === 't5' ? textConfig(change(c))(model) : model;
  };

const untied = (model: Blip2): Blip2 => {
  const { language_model } = model.params;
  const { weight } =
    'model' in language_model ? language_model.model.decoder.embed_tokens : language_model.shared;
  const noise = normal(fold(rngKey(0), 'head'), weight.size).map((z) => 0.02 * z);
  const lm_head = { weight: tensor<typeof weight>(noise, weight.shape) };
  return { ...model, params: { ...model.params, language_model: { ...language_model, lm_head } } };
};

const withoutBias: Wrong = (run, inputs, attrs) => {
  const rest = { ...inputs };
  delete rest.bias;
  return run(rest, attrs);
};

/** Only the first use of a bias counts: that of block 0. */
const biasOfFirstBlock = (): Wrong => {
  const used = new WeakSet<object>();
  return (run, inputs, attrs) => {
    if (!inputs.bias || used.has(inputs.bias.dataId)) return withoutBias(run, inputs, attrs);
    used.add(inputs.bias.dataId);
    return run(inputs, attrs);
  };
};

/** Attention that is not scaled, as T5's, scaled as OPT's is. */
const scaled = attributes(({ scale, numHeads }, { q }) => ({
  scale: scale === 1 ? ((q.shape[2] as number) / (numHeads as number)) ** -0.5 : scale,
}));

/** Skips the Q-Former's first norm for the query tokens. */
const dropQueryNorm: Wrong = (run, inputs, attrs) => {
  const out = run(inputs, attrs);
  return inputs.x.size / inputs.weight.size === queryRows ? [tf.clone(inputs.x), ...out.slice(1)] : out;
};
/** Number of rows of the unbatched queries; no other norm in the cases has as few. */
const queryRows = 4;

/** The case with other inputs or options. */
const inputsChanged = (change: (json: InputsJson) => InputsJson): Changes => ({
  case: (of) => ({
    ...of,
    inputs: Object.fromEntries(Object.entries(of.inputs).map(([name, json]) => [name, change(json)])),
  }),
});
const optionsChanged = (change: (options: GenerateOptions) => GenerateOptions): Changes => ({
  case: (of) => ({
    ...of,
    checks: of.checks.map((check) =>
      'options' in check ? { ...check, options: change(check.options) } : check,
    ),
  }),
});

/** Mutations of T5. */
const ofT5: readonly Mutation[] = [
  { name: 'T5: no position bias', kernels: allAttentions(withoutBias) },
  { name: 'T5: position bias in block 0 only', kernels: { NnAttention: biasOfFirstBlock() } },
  {
    name: 'T5: positions in the next bucket',
    changes: {
      model: (m) => ({
        ...m,
        params: replaceLeaves(m.params, (at, t) =>
          at.endsWith('relative_attention_bias.weight') ? shifted(t, 1) : t,
        ),
      }),
    },
  },
  { name: 'T5: attention scaled by √d_kv', kernels: allAttentions(scaled) },
  {
    name: "T5: norms' eps 1e-5 for 1e-6",
    kernels: { NnRmsNorm: attributes(() => ({ eps: 1e-5 })) },
  },
  {
    name: 'T5: tied head not scaled, untied head scaled',
    changes: { model: t5Config((c) => ({ scale_decoder_outputs: !c.scale_decoder_outputs })) },
  },
  {
    name: 'T5: target rows begin with another token',
    changes: { model: t5Config(() => ({ decoder_start_token_id: 5 })) },
  },
];

/** The case with other rows for the Q-Former. */
const instructionsChanged = (change: (rows: TokensJson) => Partial<TokensJson>): Changes =>
  inputsChanged(({ instructions: rows, ...json }) => ({
    ...json,
    ...(rows && { instructions: { ...rows, ...change(rows) } }),
  }));

/** Attention of rows to themselves without a bias, with the first key masked: in the Q-Former, a query. */
const firstQueryMasked: Wrong = (run, inputs, attrs) => {
  const { q, k, keyMask, bias } = inputs;
  if (!keyMask || bias || attrs.causal || q.shape[1] !== k.shape[1]) return run(inputs, attrs);
  const [B, T] = keyMask.shape as [number, number];
  const rest = tf.tidy(() => tf.concat([tf.zeros([B, 1]), tf.slice(keyMask, [0, 1], [B, T - 1])], 1));
  return run({ ...inputs, keyMask: rest }, attrs);
};

/** Mutations of InstructBLIP. */
const ofInstructBlip: readonly Mutation[] = [
  {
    name: 'InstructBLIP: instruction not read by the Q-Former',
    changes: instructionsChanged(({ attention_mask }) => ({ attention_mask: attention_mask.map(() => 0) })),
  },
  {
    name: 'InstructBLIP: pads of the instruction not masked',
    changes: instructionsChanged(({ attention_mask }) => ({ attention_mask: attention_mask.map(() => 1) })),
  },
  {
    name: 'InstructBLIP: instruction of the row before',
    changes: instructionsChanged(({ input_ids, shape: [, W] }) => ({
      input_ids: [...input_ids.slice(-W), ...input_ids.slice(0, -W)],
    })),
  },
  {
    name: 'InstructBLIP: positions of the instruction off by one',
    changes: {
      model: leaf('qformer.embeddings.position_embeddings.weight', (t) => shifted(t, 1)),
    },
  },
  {
    name: "InstructBLIP: instruction by the text model's tokenizer",
    changes: {
      processor: (p) => ({
        ...p,
        ...(p.qformer && { qformer: { ...p.qformer, read: (text) => ({ ids: p.tokenizer.encode(text) }) } }),
      }),
    },
  },
  {
    name: 'InstructBLIP: a query masked beside the instruction',
    kernels: { NnAttention: firstQueryMasked, NnAttentionGrad: firstQueryMasked },
  },
];

export const mutations: readonly Mutation[] = [
  { name: 'tanh GELU instead of the exact one', kernels: { NnGelu: tanhGelu, NnLinear: tanhGeluOfLinear } },
  { name: "vision norms' eps 1e-5 for 1e-6", kernels: eps(1e-6, 1e-5) },
  { name: "OPT norms' eps 1e-6 for 1e-5", kernels: eps(1e-5, 1e-6) },
  { name: "Q-Former norms' eps 1e-5 for 1e-12", kernels: eps(1e-12, 1e-5) },
  {
    name: 'positions without OPT’s offset of 2',
    changes: { model: leaf('language_model.model.decoder.embed_positions.weight', (t) => shifted(t, 2)) },
  },
  { name: 'pads not masked', kernels: attentions(withoutMask) },
  { name: 'attention not scaled', kernels: attentions(attributes(() => ({ scale: 1 }))) },
  {
    name: 'attention scaled by √D, not √(D/heads)',
    kernels: attentions(attributes((_, { q }) => ({ scale: (q.shape.at(-1) as number) ** -0.5 }))),
  },
  { name: 'causal mask off by one', kernels: { NnAttention: lookAhead } },
  { name: 'no causal mask', kernels: attentions(attributes(() => ({ causal: false }))) },
  { name: 'packed texts read the picture of the next row', kernels: packed(nextPicture) },
  { name: 'packed texts begin a position early', kernels: packed(early) },
  { name: 'query tokens not normed', kernels: { NnLayerNorm: dropQueryNorm } },
  { name: 'head not tied to the embeddings', changes: { model: untied } },
  {
    name: 'pre-norm and post-norm swapped',
    changes: {
      model: (m) => {
        const { text_config: c } = m.config;
        return c.model_type === 'opt' ? textConfig({ do_layer_norm_before: !c.do_layer_norm_before })(m) : m;
      },
    },
  },
  {
    name: 'prompt and image positions enter the loss',
    changes: inputsChanged((json) => ({
      ...json,
      labels: json.labels?.map((label, i) => (json.attention_mask[i] ? json.input_ids[i] : label)),
    })),
  },
  {
    name: 'attention mask ignored',
    changes: inputsChanged((json) => ({ ...json, attention_mask: json.attention_mask.map(() => 1) })),
  },
  {
    name: 'position embeddings of images shifted by one',
    changes: {
      model: leaf('vision_model.embeddings.position_embedding', (t) =>
        concat([slice(t, [0, 1, 0], [1, -1, -1]), slice(t, [0, 0, 0], [1, 1, -1])], 1),
      ),
    },
  },
  {
    name: 'labels smoothed by 0.01',
    kernels: {
      NnCrossEntropy: attributes(() => ({ labelSmoothing: 0.01 })),
      NnLinearCrossEntropy: attributes(() => ({ labelSmoothing: 0.01 })),
    },
  },
  { name: 'AdamW without bias correction', kernels: { NnAdamW: attributes(() => ({ c1: 1, c2: 1 })) } },
  { name: "Adam's eps 1e-6 for 1e-8", kernels: { NnAdamW: attributes(() => ({ eps: 1e-6 })) } },
  {
    name: 'weight decay left out',
    kernels: {
      NnAdamW: attributes(({ weightDecays }) => ({ weightDecays: (weightDecays as number[]).map(() => 0) })),
    },
  },
  {
    name: 'images normalised by another mean',
    changes: {
      processor: (p) => ({ ...p, pixels: async (image) => (await p.pixels(image)).map((v) => v + 0.01) }),
    },
  },
  {
    name: 'a space in front of every text',
    changes: {
      processor: (p) => ({
        ...p,
        tokenizer: { ...p.tokenizer, encode: (text) => p.tokenizer.encode(` ${text}`) },
      }),
    },
  },
  { name: 'top_k not 50 by default', changes: optionsChanged((o) => ({ top_k: 0, ...o })) },
  { name: 'temperature left out', changes: optionsChanged((o) => ({ ...o, temperature: 1 })) },
  { name: 'length_penalty left out', changes: optionsChanged((o) => ({ ...o, length_penalty: 1 })) },
  {
    name: 'early_stopping true taken for false',
    changes: optionsChanged((o) => ({
      ...o,
      early_stopping: o.early_stopping === true ? false : o.early_stopping,
    })),
  },
  {
    name: 'early_stopping "never" taken for false',
    changes: optionsChanged((o) => ({
      ...o,
      early_stopping: o.early_stopping === 'never' ? false : o.early_stopping,
    })),
  },
  { name: 'min_new_tokens left out', changes: optionsChanged((o) => ({ ...o, min_new_tokens: 0 })) },
  { name: 'repetition_penalty left out', changes: optionsChanged((o) => ({ ...o, repetition_penalty: 1 })) },
  ...ofT5,
  ...ofInstructBlip,
];
