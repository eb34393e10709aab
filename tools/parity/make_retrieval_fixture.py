"""Makes packages/retrieval/fixtures: a tiny random Blip2ForImageTextRetrieval checkpoint and golden numbers for it.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2
    python tools/parity/make_retrieval_fixture.py

fixtures/
  tiny/               config.json, model.safetensors, tokenizer (BERT's, a small vocabulary), preprocessor_config.json
  golden.json         token rows of some texts
  golden.safetensors  pixel_values, embeddings and logits
Everything is float32 and in evaluation mode. The script also checks that transformers gives the same numbers with the other
convention of its config, in which every text begins with image tokens.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2TextModelWithProjection,
    Blip2VisionConfig,
    Blip2VisionModelWithProjection,
    OPTConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

FIXTURES = Path(__file__).resolve().parents[2] / "packages" / "retrieval" / "fixtures"
QUERIES, SIDE = 4, 32
TEXTS = ["a red heart on a white wall", "Two blue squares!", "a dog", "ünknown wörds, and a 猫"]


def make_tokenizer():
    """BERT's, uncased, with a start token of a decoder as LAVIS adds it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    trainer = trainers.WordPieceTrainer(vocab_size=64, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator([text.lower() for text in TEXTS[:3]], trainer)
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="[DEC]", unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=32,
    )  # fmt: skip


def make_config(image_token_index=None):
    config = Blip2Config(
        vision_config=Blip2VisionConfig(
            hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=SIDE, patch_size=8
        ).to_dict(),
        qformer_config=Blip2QFormerConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, encoder_hidden_size=24, vocab_size=64,
            max_position_embeddings=40, use_qformer_text_input=True,
        ).to_dict(),
        text_config=OPTConfig(vocab_size=64, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=1).to_dict(),
        num_query_tokens=QUERIES,
        image_text_hidden_size=12,
    )  # fmt: skip
    config.image_token_index = image_token_index
    return config


def fill(model, seed):
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            norm = "norm" in name.lower() and name.endswith("weight")
            std = 0.3 if p.dim() > 1 else 0.1
            p.copy_(torch.randn(p.shape, generator=draw) * std + (1.0 if norm else 0.0))
    return model.eval()


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    shutil.rmtree(FIXTURES / "tiny", ignore_errors=True)
    tiny = FIXTURES / "tiny"
    tokenizer = make_tokenizer()
    model = fill(Blip2ForImageTextRetrieval._from_config(make_config(), attn_implementation="eager"), 11)
    model.save_pretrained(tiny)
    tokenizer.save_pretrained(tiny)
    BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(tiny)

    pixels = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(12))
    rows = tokenizer(TEXTS, padding=True, return_tensors="pt")
    ids, mask = rows["input_ids"], rows["attention_mask"]
    itc = model(pixels, ids, mask)
    # every text beside every picture
    pairs = [(p, t) for p in range(len(pixels)) for t in range(len(TEXTS))]
    which = torch.tensor(pairs)
    itm = model(pixels[which[:, 0]], ids[which[:, 1]], mask[which[:, 1]], use_image_text_matching_head=True)

    other = Blip2ForImageTextRetrieval._from_config(make_config(63), attn_implementation="eager").eval()
    other.load_state_dict(model.state_dict())
    first = torch.full((len(TEXTS), QUERIES), 63)
    ids2, mask2 = torch.cat([first, ids], 1), torch.cat([torch.ones_like(first), mask], 1)
    assert torch.equal(other(pixels, ids2, mask2).logits_per_image, itc.logits_per_image)
    itm2 = other(pixels[which[:, 0]], ids2[which[:, 1]], mask2[which[:, 1]], use_image_text_matching_head=True)
    assert torch.equal(itm2.logits_per_image, itm.logits_per_image)

    for cls in (Blip2TextModelWithProjection, Blip2VisionModelWithProjection):
        part = cls._from_config(make_config(), attn_implementation="eager").eval()
        part.load_state_dict(model.state_dict(), strict=False)
        names = sorted(part.state_dict())
        (FIXTURES / f"{cls.__name__}.json").write_text(json.dumps(names, indent=0) + "\n")
        if cls is Blip2TextModelWithProjection:
            assert torch.equal(part(ids, mask).text_embeds[:, 0], itc.text_embeds)
        else:
            assert torch.equal(part(pixels).image_embeds, itc.image_embeds)

    golden = {
        "pixel_values": pixels, "image_embeds": itc.image_embeds, "text_embeds": itc.text_embeds,
        "itc": itc.logits_per_image, "itm": itm.logits_per_image.reshape(len(pixels), len(TEXTS), 2),
    }  # fmt: skip
    save_file({n: t.contiguous() for n, t in golden.items()}, FIXTURES / "golden.safetensors", metadata={"config": "{}"})
    text_rows = {"texts": TEXTS, "input_ids": ids.tolist(), "attention_mask": mask.tolist()}
    (FIXTURES / "golden.json").write_text(json.dumps(text_rows, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
