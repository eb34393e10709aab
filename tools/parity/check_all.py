"""Loads everything this project writes in transformers and PEFT: no missing and no unexpected key, and the same logits.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 pillow==13.0.0
    npx nx build parity
    python tools/parity/check_all.py [DIR]

Without DIR, the runner (`node tools/parity/dist/bin.js --write`) first writes models of every dtype and form, a merged model,
and adapters of every kind into a temporary folder. Exit code 1 if anything differs.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoProcessor

import check_adapter

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5  # of the largest logit


def load_model(folder):
    model, info = check_adapter.class_of(folder).from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, attn_implementation="eager"
    )
    problems = [f"{kind}: {info[kind]}" for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs") if info.get(kind)]
    if (folder / "tokenizer.json").exists():
        AutoProcessor.from_pretrained(folder)
    return model.eval(), problems


def load_adapter(root, entry):
    model = check_adapter.load(root / entry["base"], root / entry["folder"])
    return model, [] if check_adapter.check_tensors(model, root / entry["folder"]) else ["tensors differ"]


def logits_error(model, expected):
    """Largest difference divided by the largest logit, padding excluded; with labels (T5), of the target rows."""
    tensors = load_file(expected)
    wanted = tensors.pop("logits")
    mask = torch.ones(wanted.shape[:2], dtype=torch.bool) if "labels" in tensors else tensors["attention_mask"] == 1
    with torch.no_grad():
        logits = (model if "pixel_values" in tensors else model.language_model)(**tensors).logits
    return ((logits - wanted)[mask].abs().max() / wanted[mask].abs().max()).item()


def main():
    if len(sys.argv) > 1:
        root = Path(sys.argv[1])
    else:
        root = Path(tempfile.mkdtemp(prefix="blip2-written-"))
        subprocess.run(["node", ROOT / "tools/parity/dist/bin.js", "--write", root], check=True)
    failed = 0
    entries = json.loads((root / "manifest.json").read_text())
    for entry in entries:
        model, problems = load_model(root / entry["folder"]) if entry["kind"] == "model" else load_adapter(root, entry)
        error = logits_error(model, root / entry["expected"])
        if not error <= TOLERANCE:
            problems.append("the logits differ")
        failed += bool(problems)
        print(f"{entry['name']:30} logits {error:.1e}  {'; '.join(problems) or 'ok'}")
    print(f"{len(entries) - failed} of {len(entries)} load as transformers' and PEFT's own, with the same logits")
    sys.exit(1 if failed or not entries else 0)


if __name__ == "__main__":
    main()
