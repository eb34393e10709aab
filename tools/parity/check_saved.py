"""Loads models saved by @blip2/blip2 in transformers: no missing and no unexpected key, and the same logits.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2
    BLIP2_PARITY_OUT=runs/saved npx vitest run --project blip2 src/save.spec.ts
    python tools/parity/check_saved.py runs/saved

The folder holds one sub-folder per model and, beside each, `<name>.expected.safetensors` with the tensors
pixel_values, input_ids, attention_mask and logits. A single pair can be given instead:

    python tools/parity/check_saved.py MODEL_FOLDER EXPECTED.safetensors
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Blip2ForConditionalGeneration, Blip2Processor

TOLERANCE = 1e-5  # of the largest logit


def check(folder, expected):
    model, info = Blip2ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, attn_implementation="eager"
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info.get(kind), f"{folder}: {kind}: {info[kind]}"
    Blip2Processor.from_pretrained(folder)
    tensors = load_file(expected)
    wanted = tensors.pop("logits")
    with torch.no_grad():
        logits = model.eval()(**tensors).logits
    real = tensors["attention_mask"] == 1
    error = ((logits - wanted)[real].abs().max() / wanted[real].abs().max()).item()
    print(f"{folder}: loaded, largest error {error:.1e} of the largest logit")
    assert error < TOLERANCE, f"{folder}: expected an error below {TOLERANCE}"


def main(root, *expected):
    pairs = [(root, Path(e)) for e in expected]
    pairs = pairs or [(f.with_name(f.name.removesuffix(".expected.safetensors")), f) for f in sorted(root.glob("*.expected.safetensors"))]
    assert pairs, f"{root}: no *.expected.safetensors"
    for folder, file in pairs:
        check(folder, file)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
