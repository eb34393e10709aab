/** Recognises files and folders that were put where weights are expected, by their first bytes and their names. */

/** Enough of a file's beginning for `formatOf`. */
export const HEAD_BYTES = 64;

const SAVE_AGAIN = 'in Python, from_pretrained(…).save_pretrained(FOLDER) writes safetensors';
const FETCH_AGAIN = 'fetch the file again, for a model on the hub by blip2 pull';

const MAGIC: readonly (readonly [RegExp | string, string])[] = [
  [
    /^version https:\/\/git-lfs/,
    `a Git LFS pointer, which names a file and is not it; run git lfs pull, or ${FETCH_AGAIN}`,
  ],
  [/^\s*<(!doctype|html|head|\?xml)/i, `a web page, so the download failed; ${FETCH_AGAIN}`],
  [/^GGUF/, 'GGUF (llama.cpp), which is not supported; use the checkpoint in safetensors'],
  ['PK\x03\x04', `a zip file, as torch.save writes .bin and .pth; ${SAVE_AGAIN}`],
  ['\x80', `a pickle, as torch.save writes .bin and .pth; ${SAVE_AGAIN}`],
  ['\x89HDF', `HDF5, as TensorFlow and Keras write .h5; ${SAVE_AGAIN} (from_tf=True)`],
  ['\x1f\x8b', 'a compressed file; unpack it'],
  ['\xfd7zXZ', 'a compressed file; unpack it'],
  [/^\0{16,}$/, `zeros, so the download was cut off or the disk was full; ${FETCH_AGAIN}`],
  [
    /^(error|not found|access|unauthorized|entry not found|invalid )/i,
    `an error message of a server; ${FETCH_AGAIN}`,
  ],
  [/^\s*[{[]/, `JSON text, perhaps a server's error message; ${FETCH_AGAIN}`],
];

/** What a file is that does not begin as expected, with what to do; undefined if it is not recognised. */
export function formatOf(head: Uint8Array): string | undefined {
  if (head.byteLength === 0) return `an empty file; ${FETCH_AGAIN}`;
  const text = String.fromCharCode(...head.subarray(0, HEAD_BYTES));
  if (/^.{8}\{/s.test(text)) return 'safetensors';
  return MAGIC.find(([begin]) =>
    typeof begin === 'string' ? text.startsWith(begin) : begin.test(text),
  )?.[1];
}

const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^adapter_(model|config)\./, 'an adapter: pass it as --adapter, and the model it was made for as --model'],
  [
    /^model-\d+-of-\d+\.safetensors$/,
    'shards without model.safetensors.index.json: copy the index from the same checkpoint',
  ],
  [/^pytorch_model.*\.bin(\.index\.json)?$/, `a checkpoint of torch.save: ${SAVE_AGAIN}`],
  [
    /\.distcp$|^pytorch_model_fsdp/,
    'shards of FSDP: in Python, join them by accelerate merge-weights FOLDER OUTPUT',
  ],
  [
    /^(global_step\d+|zero_to_fp32\.py|.*zero_pp_rank.*|mp_rank.*)$/,
    "shards of DeepSpeed: run the folder's zero_to_fp32.py in Python",
  ],
  [/\.gguf$/, 'GGUF (llama.cpp), which is not supported: use the checkpoint in safetensors'],
  [/\.onnx$/, 'ONNX, which is not supported: use the checkpoint in safetensors'],
  [/^tf_model.*\.h5$|^saved_model\.pb$/, `TensorFlow: ${SAVE_AGAIN} (from_tf=True)`],
  [/^flax_model.*\.msgpack$/, `Flax: ${SAVE_AGAIN} (from_flax=True)`],
  [/\.ckpt$/, 'a checkpoint of Lightning: in Python, save the model inside it by save_pretrained'],
  [
    /\.(pth|pt|bin)$/,
    `a checkpoint of torch.save: for one of LAVIS run blip2 import-lavis; else ${SAVE_AGAIN}`,
  ],
  [/^checkpoint-\d+$/, 'checkpoints of a Trainer: name one of these folders'],
];

/** What a folder without safetensors holds: `NAME: what it is and what to do`; undefined if nothing is recognised. */
export function folderFormat(names: readonly string[]): string | undefined {
  for (const [pattern, what] of NAMES) {
    const name = [...names].sort().find((one) => pattern.test(one));
    if (name) return `${name}, ${what}`;
  }
  return undefined;
}
