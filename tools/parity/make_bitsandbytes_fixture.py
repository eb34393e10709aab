"""Makes packages/blip2/fixtures/bitsandbytes: the tiny checkpoint quantised by bitsandbytes, and what the real library computes with it.

    pip install torch==2.13.0 transformers==5.23.0 accelerate bitsandbytes==0.50.2
    python tools/parity/make_bitsandbytes_fixture.py [packages/blip2/fixtures]

bitsandbytes/
  int8, nf4, nf4-double, fp4   config.json and model.safetensors, as save_pretrained writes them. nf4-double has quantised absmax, and
                               bfloat16 for all that is not quantised
  golden.json                  digests of every dequantised weight: sha256 of its float32, for nf4-double of its bfloat16 numbers
  golden.safetensors           NAME.logits, as bitsandbytes multiplies, and NAME.dequantised, after model.dequantize(); float32
Inputs are those of `right` in ../golden.json.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import bitsandbytes
import torch
from bitsandbytes import functional
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig, Blip2ForConditionalGeneration

import bitsandbytes_cpu  # noqa: F401

FOUR = {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32}
VARIANTS = {
    "int8": (torch.float32, {"load_in_8bit": True}),
    "nf4": (torch.float32, FOUR | {"bnb_4bit_quant_type": "nf4"}),
    "nf4-double": (torch.bfloat16, FOUR | {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}),
    "fp4": (torch.float32, FOUR | {"bnb_4bit_quant_type": "fp4"}),
}


def dequantised(module):
    weight = module.weight
    if isinstance(module, bitsandbytes.nn.Linear4bit):
        return functional.dequantize_4bit(weight.data, weight.quant_state)
    scales = weight.SCB if weight.SCB is not None else module.state.SCB
    return functional.int8_vectorwise_dequant(weight.data, scales)


def digest(tensor):
    bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    return hashlib.sha256(bits.contiguous().numpy().tobytes()).hexdigest()[:16]


def load(folder, dtype, **options):
    return Blip2ForConditionalGeneration.from_pretrained(folder, dtype=dtype, attn_implementation="eager", device_map="cpu", **options).eval()


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits.float()


def main(root):
    torch.set_num_threads(1)
    out = root / "bitsandbytes"
    shutil.rmtree(out, ignore_errors=True)
    case = json.loads((root / "golden.json").read_text())["cases"]["right"]
    pixels = load_file(root / "golden.safetensors")["pixel_values"][:2]
    tokens = {n: torch.tensor(case[n]).reshape(case["shape"]) for n in ("input_ids", "attention_mask")}
    golden, floats = {"bitsandbytes": bitsandbytes.__version__, "weights": {}}, {}
    for name, (dtype, options) in VARIANTS.items():
        quantised = load(root / "tiny", dtype, quantization_config=BitsAndBytesConfig(**options))
        quantised.save_pretrained(out / name)
        (out / name / "generation_config.json").unlink(missing_ok=True)
        model = load(out / name, dtype)  # what others read
        linears = {n: m for n, m in model.named_modules() if isinstance(m, (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt))}
        golden["weights"][name] = {f"{n}.weight": digest(dequantised(m)) for n, m in linears.items()}
        inputs = tokens | {"pixel_values": pixels.to(dtype)}
        floats[f"{name}.logits"] = logits(model, inputs)
        plain = model.dequantize().float()
        floats[f"{name}.dequantised"] = logits(plain, tokens | {"pixel_values": pixels})
    (out / "golden.json").write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    save_file({n: t.contiguous().clone() for n, t in floats.items()}, out / "golden.safetensors", metadata={"format": "pt"})
    for file in out.rglob("*.safetensors"):
        file.chmod(0o644)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(f"bitsandbytes {bitsandbytes.__version__}, {size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "packages/blip2/fixtures"))
