"""Makes packages/blip2/fixtures/tiny-t5: a tiny random BLIP-2 checkpoint with a T5 text model, and a LoRA adapter for it.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 pillow==13.0.0
    python tools/parity/make_t5_fixture.py

It is laid out as Salesforce/blip2-flan-t5-xl: T5 1.1 with `dense_act_fn` "gelu" (LAVIS replaces Flan-T5's `gelu_new`), an untied head,
its own Unigram tokenizer with sentinel tokens, and `<image>` behind them. tiny-t5-adapter is on q and v (PEFT's default for T5).
make_t5_cases.py makes golden cases of both.
"""

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, Blip2QFormerConfig, Blip2VisionConfig, T5Config, T5Tokenizer
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

import make_blip2_fixture as tiny

FIXTURES = Path(__file__).resolve().parents[2] / "packages/blip2/fixtures"
QUERIES, SIDE, VOCABULARY = tiny.QUERIES, tiny.SIDE, 64


def make_tokenizer():
    """T5's layout: <pad> 0, </s> 1, <unk> 2, pieces, sentinel tokens; </s> is appended to every text."""
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)])
    trainer = trainers.UnigramTrainer(vocab_size=55, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False)
    trained.train_from_iterator(tiny.CORPUS, trainer)
    pieces = [(piece, round(score, 4)) for piece, score in json.loads(trained.to_str())["model"]["vocab"]]
    pieces = pieces[:3] + sorted(pieces[3:], key=lambda p: (-p[1], p[0]))  # equal in every run
    sentinels = [(f"<extra_id_{i}>", 0.0) for i in (1, 0)]
    return T5Tokenizer(vocab=pieces + sentinels, extra_ids=2, model_max_length=64)


def make_processor():
    image_processor = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return Blip2Processor(image_processor, make_tokenizer(), num_query_tokens=QUERIES)


def make_config(image, **text):
    return Blip2Config(
        vision_config=Blip2VisionConfig(
            hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=SIDE, patch_size=8
        ).to_dict(),
        qformer_config=Blip2QFormerConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, encoder_hidden_size=24, vocab_size=64
        ).to_dict(),
        text_config=T5Config(**(dict(
            vocab_size=VOCABULARY, d_model=24, d_kv=6, num_heads=3, d_ff=40, num_layers=2, relative_attention_num_buckets=8,
            relative_attention_max_distance=12, feed_forward_proj="gated-gelu", dense_act_fn="gelu", tie_word_embeddings=False,
            decoder_start_token_id=0, bos_token_id=1) | text)).to_dict(),
        num_query_tokens=QUERIES,
        image_token_index=image,
    )  # fmt: skip


def make_model(config, seed, head=True):
    """Large weights, so that a wrong epsilon, mask or bucket changes the logits; transformers 5 unties a head that a checkpoint has."""
    model = Blip2ForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    lm = model.language_model
    if head:
        lm.lm_head.weight = torch.nn.Parameter(torch.empty_like(lm.lm_head.weight))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            norm = "norm" in name.lower() and name.endswith("weight")
            std = 1.0 if "relative_attention_bias" in name else 0.25 if p.dim() > 1 else 0.1
            p.copy_(torch.randn(p.shape, generator=draw) * std + (1.0 if norm else 0.0))
        head = lm.lm_head.weight if head else lm.shared.weight
        head[[0, 2, config.image_token_index - 2, config.image_token_index - 1, config.image_token_index]] *= 0.2  # seldom generated
    return model


def add_adapter(model, seed):
    peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.05, target_modules=["q", "v"])).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in peft.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn(p.shape, generator=draw) * 0.2)
    return peft


def new_ids(model, pixels, tokens, options):
    """The generated part of each row, up to the end token (excluded)."""
    given = {} if tokens is None else {"input_ids": tokens[0], "attention_mask": tokens[1]}
    eos = options.get("eos_token_id", model.config.text_config.eos_token_id)
    eos = eos if isinstance(eos, list) else [eos]
    out = model.generate(pixel_values=pixels, **given, **options)
    rows = [row[1:] for row in out.tolist()]  # after the decoder's start token
    return [row[: next((i for i, t in enumerate(row) if t in eos), len(row))] for row in rows]


def rows(processor, texts, side, layout="processor"):
    """Encoder rows of prompts, each with its end token. Layouts as in make_blip2_fixture.rows."""
    return tiny.rows(processor, texts, side, layout)


def labels_of(processor, targets):
    """Target rows with their end token, then -100."""
    ids = [processor.tokenizer(t).input_ids for t in targets]
    return torch.tensor([row + [-100] * (max(map(len, ids)) - len(row)) for row in ids])


def is_lively(processor, model, pixels):
    """Whether texts end at different steps and depend on prompts, images and beams."""
    prompts = rows(processor, tiny.PROMPTS, "right")
    greedy = new_ids(model, pixels, prompts, {"max_new_tokens": 14})
    lengths = {len(r) for r in greedy}
    if len(lengths) < 3 or max(lengths) < 14 or min(lengths) == 0 or any(len(set(r)) < 3 for r in greedy):
        return False
    only = new_ids(model, pixels, None, {"max_new_tokens": 14})
    beams = [json.dumps(new_ids(model, pixels, prompts, {"max_new_tokens": 14, "num_beams": 3, "length_penalty": p})) for p in (0.0, 1.0, 2.0)]
    return len({tuple(r) for r in only}) == 3 and len({json.dumps(greedy), *beams}) == 4


def pictures(processor):
    from PIL import Image

    files = sorted((FIXTURES / "images").glob("*.png"))
    return torch.cat([processor(images=Image.open(file), return_tensors="pt").pixel_values for file in files])


def main():
    torch.set_num_threads(1)
    processor = make_processor()
    image = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert image < VOCABULARY, image
    config, pixels = make_config(image), pictures(processor)
    seed = next(s for s in range(1, 4000) if is_lively(processor, make_model(config, s), pixels))
    model = make_model(config, seed)
    for name in ("tiny-t5", "tiny-t5-adapter"):
        shutil.rmtree(FIXTURES / name, ignore_errors=True)
    tiny.save_checkpoint(model, processor, FIXTURES / "tiny-t5")
    add_adapter(model, seed).save_pretrained(FIXTURES / "tiny-t5-adapter")
    (FIXTURES / "tiny-t5-adapter" / "README.md").unlink(missing_ok=True)
    tiny.sort_targets(FIXTURES / "tiny-t5-adapter" / "adapter_config.json")
    for file in FIXTURES.rglob("*.safetensors"):
        file.chmod(0o644)
    prompts = rows(processor, tiny.PROMPTS, "right")
    print(f"seed {seed}, <image> {image}")
    for row in new_ids(model, pixels, prompts, {"max_new_tokens": 14}):
        print(f"  {processor.tokenizer.decode(row)!r}")


if __name__ == "__main__":
    main()
