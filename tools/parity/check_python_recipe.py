"""Checks what docs/coming-from-peft.md states about the well-known Python recipe, with the installed transformers and PEFT.

    python tools/parity/check_python_recipe.py

Needs no download: the model has the shapes of blip2-opt-2.7b without memory for its values, and the tokenizer has GPT-2's merges, which OPT uses,
from packages/data-captions/fixtures/gpt2-bpe. Exits with 1 if a statement is wrong.
"""

import gzip
import json
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, get_peft_model
from PIL import Image
from tokenizers.processors import TemplateProcessing
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, Blip2QFormerConfig, Blip2VisionConfig
from transformers import BlipImageProcessor, GPT2Tokenizer, OPTConfig

from make_bpe_fixture import FOLDER, vocabulary

CAPTION = "a red mug"
failed = False


def check(statement, found, expected):
    global failed
    failed |= found != expected
    print(f"{'ok  ' if found == expected else 'WRONG'} {statement}: {found}" + ("" if found == expected else f", expected {expected}"))


def processor():
    """Blip2Processor as blip2-opt-2.7b has it: 32 <image> tokens, then </s> and the text."""
    text = gzip.decompress((FOLDER / "merges.txt.gz").read_bytes()).decode()
    vocab = vocabulary(text.strip().split("\n")[1:])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocab))
        (Path(folder) / "merges.txt").write_text(text)
        names = dict(unk_token="</s>", bos_token="</s>", eos_token="</s>", pad_token="<pad>")
        tokenizer = GPT2Tokenizer.from_pretrained(folder, **names)
    start = ("</s>", tokenizer.bos_token_id)  # as in blip2-opt-2.7b's tokenizer.json
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="</s> $A", special_tokens=[start])
    return Blip2Processor(BlipImageProcessor(), tokenizer, num_query_tokens=32)


def model():
    config = Blip2Config(
        vision_config=Blip2VisionConfig().to_dict(),
        qformer_config=Blip2QFormerConfig().to_dict(),
        text_config=OPTConfig(
            vocab_size=50304, hidden_size=2560, ffn_dim=10240, num_hidden_layers=32, num_attention_heads=32, word_embed_proj_dim=2560
        ).to_dict(),
    )
    with torch.device("meta"):
        return Blip2ForConditionalGeneration(config)


def labels():
    made = processor()
    image = Image.new("RGB", (224, 224), "white")
    encoding = made(images=image, text=CAPTION, padding="max_length", max_length=128, return_tensors="pt")
    ids = encoding["input_ids"].squeeze(0)
    targets = ids.clone()
    pad, picture = made.tokenizer.pad_token_id, made.tokenizer.convert_tokens_to_ids("<image>")
    check("labels of one caption", len(targets), 128)
    check("of these padding", int((targets == pad).sum()), 92)
    check("of these <image> tokens", int((targets == picture).sum()), 32)
    check("of these the caption, with the </s> in front", int(((targets != pad) & (targets != picture)).sum()), 4)
    check("tokens after the caption that end generation (a line break)", int((targets == 50118).sum()), 0)


def trained():
    base = model()
    named = list(base.named_parameters())
    count = lambda wanted: sum(p.numel() for n, p in named if wanted(n))
    check('parameters whose name contains "qformer"', count(lambda n: "qformer" in n.lower()), 105_137_664)
    rest = lambda n: n == "query_tokens" or n.endswith(".query_tokens") or "language_projection" in n
    check("of query_tokens and language_projection, which that filter leaves frozen", count(rest), 24_576 + 1_968_640)
    config = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=["q_proj", "k_proj", "v_proj", "out_proj"])
    adapted = get_peft_model(base, config)
    trainable, total = adapted.get_nb_trainable_parameters()
    check("parameters that r=16 on q, k, v and out_proj trains", trainable, 10_485_760)
    print(f"     that is {100 * trainable / total:.4f} % of {total:,}")


def gone():
    check(f"transformers {transformers.__version__} has AdamW", hasattr(transformers, "AdamW"), False)


gone()
labels()
trained()
sys.exit(1 if failed else 0)
