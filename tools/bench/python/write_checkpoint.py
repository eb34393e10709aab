"""Writes a BLIP-2 checkpoint with random weights in Hugging Face's layout, for measurements.

    python tools/bench/python/write_checkpoint.py full-bf16                      # blip2-opt-2.7b's sizes, 7.5 GB
    python tools/bench/python/write_checkpoint.py t5-bf16 --size flan-t5-xl --tokenizer packages/blip2/fixtures/tiny-t5  # 7.9 GB
    python tools/bench/python/write_checkpoint.py tiny --size tiny --dtype float32 --adapter tiny-adapter

Matrices and biases are N(0, 0.02), norms 1 and 0. Numbers come from one pool that every tensor reads from another place:
repeatable, and as fast as the disk. Tokenizer and special ids are those of --tokenizer, so that texts can be given too;
the vocabulary keeps its full size.
"""

import argparse
import json
import shutil
import zlib
from pathlib import Path

import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration

POOL = 8_388_593  # a prime, so that the rows of no matrix repeat in step with it
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
SIZES = {
    "full": {
        "vision": {},
        "qformer": {},
        "text": dict(hidden_size=2560, ffn_dim=10240, num_hidden_layers=32, num_attention_heads=32, vocab_size=50304),
        "queries": 32,
    },
    "flan-t5-xl": {
        "vision": {},
        "qformer": {},
        "text": dict(model_type="t5", d_model=2048, d_kv=64, d_ff=5120, num_heads=32, num_layers=24, vocab_size=32128,
                     feed_forward_proj="gated-gelu", dense_act_fn="gelu", tie_word_embeddings=False, decoder_start_token_id=0),
        "queries": 32,
    },
    "tiny": {
        "vision": dict(hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, image_size=56),
        "qformer": dict(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4),
        "text": dict(hidden_size=64, ffn_dim=128, num_hidden_layers=3, num_attention_heads=4, vocab_size=2048,
                     max_position_embeddings=160),
        "queries": 8,
    },
}  # fmt: skip
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def make_config(size, dtype, source):
    """Sizes from the table, special ids from the checkpoint whose tokenizer is copied."""
    ids = source["text_config"]
    opt = {"model_type": "opt", "word_embed_proj_dim": size["text"].get("hidden_size")}
    text = {
        **({} if "model_type" in size["text"] else opt),
        **size["text"],
        **{key: ids[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")},
    }
    config = Blip2Config(
        vision_config=size["vision"],
        qformer_config={**size["qformer"], "encoder_hidden_size": size["vision"].get("hidden_size", 1408)},
        text_config=text,
        num_query_tokens=size["queries"],
        image_token_index=source["image_token_index"],
        architectures=["Blip2ForConditionalGeneration"],
    )
    config.dtype = dtype
    return config


def shapes(config):
    """Names and shapes as transformers has them; of tied tensors, the first is stored. T5's head is not tied."""
    with torch.device("meta"):
        model = Blip2ForConditionalGeneration(config)
    state = {name: tuple(t.shape) for name, t in model.state_dict().items() if not name.endswith("position_ids")}
    tied = ("encoder.embed_tokens", "decoder.embed_tokens") if config.text_config.model_type == "t5" else ("lm_head",)
    for name in tied:
        state.pop(f"language_model.{name}.weight")
    return state


def values(name, shape, pool):
    if "norm" in name.lower():
        return torch.full(shape, 1.0 if name.endswith("weight") else 0.0, dtype=pool.dtype)
    count = torch.Size(shape).numel()
    start = zlib.crc32(name.encode()) % POOL
    return pool.roll(-start).repeat(-(-count // POOL))[:count]


def write_shard(path, names, state, dtype, pool):
    """One safetensors file, a tensor at a time."""
    size = torch.empty((), dtype=dtype).element_size()
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name in names:
        begin, end = end, end + torch.Size(state[name]).numel() * size
        header[name] = {"dtype": DTYPES[str(dtype)[6:]], "shape": state[name], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(memoryview(values(name, state[name], pool).contiguous().view(torch.uint8).flatten().numpy()))


def shards(state, limit, size):
    groups, filled = [[]], 0
    for name, shape in state.items():
        bytes_ = torch.Size(shape).numel() * size
        if filled and filled + bytes_ > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += bytes_
    return groups


def write_weights(folder, state, dtype, seed, limit):
    draw = torch.Generator().manual_seed(seed)
    pool = (torch.randn(POOL, generator=draw) * 0.02).to(dtype)
    size = pool.element_size()
    groups = shards(state, limit, size)
    if len(groups) == 1:
        return write_shard(folder / "model.safetensors", groups[0], state, dtype, pool)
    weight_map = {}
    for i, names in enumerate(groups):
        file = f"model-{i + 1:05}-of-{len(groups):05}.safetensors"
        write_shard(folder / file, names, state, dtype, pool)
        weight_map.update(dict.fromkeys(names, file))
    total = sum(torch.Size(shape).numel() for shape in state.values()) * size
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def write_processor(folder, source, config):
    for file in TOKENIZER_FILES:
        if (source / file).exists():
            shutil.copy(source / file, folder)
    side = config.vision_config.image_size
    image = json.loads((source / "preprocessor_config.json").read_text())
    image["size"] = {"height": side, "width": side}
    (folder / "preprocessor_config.json").write_text(json.dumps(image, indent=2))
    processor = {"num_query_tokens": config.num_query_tokens, "processor_class": "Blip2Processor"}
    (folder / "processor_config.json").write_text(json.dumps(processor, indent=2))


def write_adapter(folder, model_dir, seed):
    """A PEFT adapter whose B is not zero, so that both sides begin with the same one."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model = Blip2ForConditionalGeneration.from_pretrained(model_dir, dtype=torch.float32)
    targets = ["q_proj", "k_proj", "v_proj", "out_proj"]
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=targets, init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(folder)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-bytes", type=float, default=5e9)
    parser.add_argument("--adapter", type=Path, help="also write a LoRA adapter here")
    default = Path(__file__).parents[3] / "models" / "blip2-emoji-mini"
    parser.add_argument("--tokenizer", type=Path, default=default, help="a checkpoint folder")
    return parser.parse_args()


def main():
    a = arguments()
    a.folder.mkdir(parents=True, exist_ok=True)
    source = json.loads((a.tokenizer / "config.json").read_text())
    dtype = getattr(torch, a.dtype)
    config = make_config(SIZES[a.size], dtype, source)
    config.save_pretrained(a.folder)
    write_processor(a.folder, a.tokenizer, config)
    state = shapes(config)
    write_weights(a.folder, state, dtype, a.seed, a.shard_bytes)
    count = sum(torch.Size(shape).numel() for shape in state.values())
    print(f"{a.folder}: {count:,} parameters in {len(state)} tensors, {a.dtype}")
    if a.adapter:
        write_adapter(a.adapter, a.folder, a.seed)


if __name__ == "__main__":
    main()
