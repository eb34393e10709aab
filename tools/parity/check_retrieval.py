"""Loads what fit trained for retrieval in transformers and PEFT, and finds the nearest texts again.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 pillow
    python tools/parity/check_retrieval.py runs/emoji-retrieval [RUN…]

Each run folder has model/ or adapter/, and samples.jsonl with the nearest text of each held-out picture. No tensor may be missing or
unexpected. Nearest texts must be the same, in bfloat16 most of them, since captions of one kind are about equally near.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoTokenizer, Blip2ForImageTextRetrieval
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

MOST, SAME = 64, {"float32": 0.98, "bfloat16": 0.85}


def load(run):
    adapter = run / "adapter"
    base = run / "model"
    if adapter.exists():
        base = Path(json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"])
    model, info = Blip2ForImageTextRetrieval.from_pretrained(base, output_loading_info=True, dtype=torch.float32)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info.get(kind), f"{base}: {kind}: {info[kind]}"
    if adapter.exists():
        model = PeftModel.from_pretrained(model, adapter).base_model.model
    return base, model.eval()


def opaque(file):
    image = Image.open(file).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


@torch.no_grad()
def check(run):
    base, model = load(run)
    tokenizer, processor = AutoTokenizer.from_pretrained(base), BlipImageProcessorPil.from_pretrained(base)
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    texts = list(dict.fromkeys(" ".join(t.split()) for s in samples for t in s.get("references", [s["reference"]])))
    rows = tokenizer(texts, padding=True, return_tensors="pt")
    some = samples[:: max(1, len(samples) // MOST)]
    pixels = processor([opaque(s["image"]) for s in some], return_tensors="pt")["pixel_values"]
    scores = model(pixels, rows["input_ids"], rows["attention_mask"]).logits_per_image
    found = [texts[i] for i in scores.argmax(1)]
    same = sum(a == s["after"] for a, s in zip(found, some)) / len(some)
    precision = "bfloat16" if "precision: bfloat16" in (run / "config.yaml").read_text() else "float32"
    print(f"{run} in {precision}: loaded, {same:.1%} of {len(some)} pictures have the same nearest text among {len(texts)}")
    assert same >= SAME[precision], f"{run}: expected at least {SAME[precision]:.0%}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        check(Path(name))
