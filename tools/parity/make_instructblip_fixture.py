"""Makes packages/blip2/fixtures/tiny-instructblip: a tiny random InstructBLIP checkpoint with a T5 text model, and a LoRA adapter for it.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 pillow==13.0.0
    python tools/parity/make_instructblip_fixture.py

It is laid out as Salesforce/instructblip-flan-t5-xl: the T5 of make_t5_fixture.py, a Q-Former with its own words and positions, and
BERT's tokenizer in qformer_tokenizer/. make_instructblip_cases.py makes golden cases of both.
"""

import json
import shutil

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

import make_blip2_fixture as tiny
import make_t5_fixture as t5

FIXTURES = t5.FIXTURES
WORDS, POSITIONS = 72, 24


def make_qformer_tokenizer():
    """bert-base-uncased's layout with the start token that LAVIS adds."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    trainer = trainers.WordPieceTrainer(vocab_size=WORDS, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator([text.lower() for text in tiny.CORPUS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="[DEC]", unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=POSITIONS,
    )  # fmt: skip


def make_processor():
    image_processor = BlipImageProcessorPil(size={"height": t5.SIDE, "width": t5.SIDE})
    return InstructBlipProcessor(image_processor, t5.make_tokenizer(), make_qformer_tokenizer(), num_query_tokens=t5.QUERIES)


def make_config(image):
    blip2 = t5.make_config(image).to_dict()
    vision = {k: v for k, v in blip2["vision_config"].items() if k != "model_type"}
    qformer = dict(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, encoder_hidden_size=24, vocab_size=WORDS,
        max_position_embeddings=POSITIONS,
    )  # fmt: skip
    return InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(**vision).to_dict(),
        qformer_config=InstructBlipQFormerConfig(**qformer).to_dict(),
        text_config=blip2["text_config"],
        num_query_tokens=t5.QUERIES,
        image_token_index=image,
    )  # fmt: skip


def make_model(config, seed):
    """As make_t5_fixture.make_model."""
    model = InstructBlipForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    lm = model.language_model
    lm.lm_head.weight = torch.nn.Parameter(torch.empty_like(lm.lm_head.weight))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            norm = "norm" in name.lower() and name.endswith("weight")
            std = 1.0 if "relative_attention_bias" in name else 0.4 if "qformer.embeddings" in name else 0.25 if p.dim() > 1 else 0.1
            p.copy_(torch.randn(p.shape, generator=draw) * std + (1.0 if norm else 0.0))
        image = config.image_token_index
        lm.lm_head.weight[[0, 2, image - 2, image - 1, image]] *= 0.2  # seldom generated
    return model


def rows(processor, texts, side="right"):
    """What transformers' own processor makes of the prompts, beside images: four tensors by name."""
    processor.tokenizer.padding_side = side
    images = [torch.zeros(3, t5.SIDE, t5.SIDE, dtype=torch.uint8)] * len(texts)
    made = processor(images=images, text=texts, padding=True, return_tensors="pt")
    return {n: made[n] for n in ("input_ids", "attention_mask", "qformer_input_ids", "qformer_attention_mask")}


def new_ids(model, pixels, tokens, options):
    """The generated part of each row, up to the end token (excluded)."""
    eos = options.get("eos_token_id", model.config.text_config.eos_token_id)
    eos = eos if isinstance(eos, list) else [eos]
    out = model.generate(pixel_values=pixels, **tokens, **options)
    found = [row[1:] for row in out.tolist()]  # after the decoder's start token
    return [row[: next((i for i, t in enumerate(row) if t in eos), len(row))] for row in found]


def is_lively(processor, model, pixels):
    """Whether texts end at different steps and depend on what the Q-Former reads, on images and on beams."""
    prompts = rows(processor, tiny.PROMPTS)
    greedy = new_ids(model, pixels, prompts, {"max_new_tokens": 14})
    lengths = {len(r) for r in greedy}
    if len(lengths) < 3 or max(lengths) < 14 or min(lengths) == 0 or any(len(set(r)) < 3 for r in greedy):
        return False
    other = dict(prompts, qformer_input_ids=prompts["qformer_input_ids"].flip(0), qformer_attention_mask=prompts["qformer_attention_mask"].flip(0))
    read = new_ids(model, pixels, other, {"max_new_tokens": 14})
    same = {n: t[:1].expand(3, -1) for n, t in prompts.items()}
    only = new_ids(model, pixels, same, {"max_new_tokens": 14})
    beams = [json.dumps(new_ids(model, pixels, prompts, {"max_new_tokens": 14, "num_beams": 3, "length_penalty": p})) for p in (0.0, 1.0, 2.0)]
    return all(a != b for a, b in zip(greedy[::2], read[::2])) and len({tuple(r) for r in only}) == 3 and len({json.dumps(greedy), *beams}) == 4


def main():
    torch.set_num_threads(1)
    processor = make_processor()
    image = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert image < t5.VOCABULARY, image
    assert len(processor.qformer_tokenizer) <= WORDS
    config, pixels = make_config(image), t5.pictures(processor)
    seed = next(s for s in range(1, 8000) if is_lively(processor, make_model(config, s), pixels))
    model = make_model(config, seed)
    for name in ("tiny-instructblip", "tiny-instructblip-adapter"):
        shutil.rmtree(FIXTURES / name, ignore_errors=True)
    tiny.save_checkpoint(model, processor, FIXTURES / "tiny-instructblip")
    t5.add_adapter(model, seed).save_pretrained(FIXTURES / "tiny-instructblip-adapter")
    (FIXTURES / "tiny-instructblip-adapter" / "README.md").unlink(missing_ok=True)
    tiny.sort_targets(FIXTURES / "tiny-instructblip-adapter" / "adapter_config.json")
    for file in FIXTURES.rglob("*.safetensors"):
        file.chmod(0o644)
    print(f"seed {seed}, <image> {image}, {len(processor.qformer_tokenizer)} words of the Q-Former")
    for row in new_ids(model, pixels, rows(processor, tiny.PROMPTS), {"max_new_tokens": 14}):
        print(f"  {processor.tokenizer.decode(row)!r}")


if __name__ == "__main__":
    main()
