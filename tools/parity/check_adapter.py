"""Loads an adapter folder written by @blip2/peft-lora in transformers and PEFT, and compares.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2
    python tools/parity/check_adapter.py BASE_FOLDER ADAPTER_FOLDER [CASE.safetensors] [--logits NAME] [--tolerance 1e-4]

Always checked: PEFT loads every stored tensor, has no other adapter tensor, and has the stored values.
With a case (pixel_values, input_ids, attention_mask, and the logits computed in TypeScript): the logits of all
positions except padding agree within the tolerance, relative to the largest logit. Exit code 1 if anything differs.
"""

import argparse
import sys
import warnings
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoConfig, Blip2ForConditionalGeneration, InstructBlipForConditionalGeneration


def class_of(folder: Path):
    is_instruct = AutoConfig.from_pretrained(folder).model_type == "instructblip"
    return InstructBlipForConditionalGeneration if is_instruct else Blip2ForConditionalGeneration


def load(base: Path, adapter: Path) -> PeftModel:
    model = class_of(base).from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(missing|unexpected) adapter keys.*")
        return PeftModel.from_pretrained(model, adapter).eval()


def check_tensors(model: PeftModel, adapter: Path) -> bool:
    stored = load_file(adapter / "adapter_model.safetensors")
    held = get_peft_model_state_dict(model)
    # Tensors outside modules, such as query_tokens: PEFT loads them into the base model, and does not save them.
    state = model.state_dict()
    held |= {name: state[name] for name in stored if name not in held and name in state}
    problems = [f"PEFT has no place for {name}" for name in sorted(stored.keys() - held.keys())]
    problems += [f"the file lacks {name}" for name in sorted(held.keys() - stored.keys())]
    for name in sorted(stored.keys() & held.keys()):
        if not torch.equal(stored[name].float(), held[name].float()):
            problems.append(f"{name} differs")
    print("\n".join(problems) or f"adapter_model.safetensors: {len(stored)} tensors, all in place")
    return not problems


def check_logits(model: PeftModel, case: Path, name: str, tolerance: float) -> bool:
    tensors = load_file(case)
    mask = tensors["attention_mask"].long()
    with torch.no_grad():
        ours = tensors[name]
        theirs = model(
            pixel_values=tensors["pixel_values"], input_ids=tensors["input_ids"].long(), attention_mask=mask
        ).logits
    difference = (ours - theirs).abs()[mask.bool()].max().item()
    scale = theirs.abs().max().item()
    fits = difference <= tolerance * scale
    print(f"logits {list(theirs.shape)}: largest difference {difference:.3g} at scale {scale:.3g}: {'ok' if fits else 'WRONG'}")
    return fits


def check(base: Path, adapter: Path, case: Path | None, name: str, tolerance: float) -> bool:
    model = load(base, adapter)
    fits = check_tensors(model, adapter)
    if case:
        fits = check_logits(model, case, name, tolerance) and fits
    return fits


def main() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("case", type=Path, nargs="?")
    parser.add_argument("--logits", default="logits", help="name of the logits in the case")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    sys.exit(0 if check(args.base, args.adapter, args.case, args.logits, args.tolerance) else 1)


if __name__ == "__main__":
    main()
