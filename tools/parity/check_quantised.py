"""Loads checkpoints that this project quantised in transformers with bitsandbytes: no missing and no unexpected key, the same logits.

    pip install torch==2.13.0 transformers==5.23.0 accelerate bitsandbytes==0.50.2
    BLIP2_PARITY_OUT=runs/quantised npx vitest run --project blip2 src/quantise.spec.ts
    python tools/parity/check_quantised.py runs/quantised

The folder holds one sub-folder per format and, beside each, `<name>.expected.safetensors` with pixel_values, input_ids, attention_mask and
logits. Logits are compared after model.dequantize(), since int8 of bitsandbytes also rounds activations; both differences are printed. A
checkpoint in this project's own format has to be refused.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Blip2ForConditionalGeneration

import bitsandbytes_cpu  # noqa: F401

TOLERANCE = 1e-5  # of the largest logit


def error(model, tensors, wanted):
    with torch.no_grad():
        logits = model(**tensors).logits.float()
    real = tensors["attention_mask"] == 1
    return ((logits - wanted)[real].abs().max() / wanted[real].abs().max()).item()


def check(folder, expected):
    model, info = Blip2ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, device_map="cpu", output_loading_info=True, attn_implementation="eager"
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info.get(kind), f"{folder}: {kind}: {info[kind]}"
    tensors = load_file(expected)
    wanted = tensors.pop("logits")
    quantised = error(model.eval(), tensors, wanted)
    dequantised = error(model.dequantize().float().eval(), tensors, wanted)
    print(f"{folder}: loaded, largest error {dequantised:.1e} of the largest logit, {quantised:.1e} as bitsandbytes multiplies")
    assert dequantised < TOLERANCE, f"{folder}: expected an error below {TOLERANCE}"


def check_refused(folder):
    try:
        Blip2ForConditionalGeneration.from_pretrained(folder)
    except RuntimeError as refusal:  # after a warning: Unknown quantization type, got blip2
        print(f"{folder}: refused: {str(refusal).splitlines()[0]}")
    else:
        raise AssertionError(f"{folder}: expected an error")


def main(root):
    files = sorted(root.glob("*.expected.safetensors"))
    assert files, f"{root}: no *.expected.safetensors"
    for file in files:
        folder = file.with_name(file.name.removesuffix(".expected.safetensors"))
        if folder.name == "int4":
            check_refused(folder)
        else:
            check(folder, file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
