"""Loads adapters written by @blip2/peft-lora in old versions of PEFT, each with the transformers of its time.

    node tools/parity/dist/bin.js --write OUT
    python tools/parity/check_old_peft.py OUT WORK_FOLDER

Every version is installed into WORK_FOLDER/VERSION by pip (200 MB each, torch is the one of this Python: 2.13.0 was used) and
loads the adapters that every version can have: the presets, patterns and modules_to_save. Every stored tensor must be in the model with its values. Old
transformers compute the prompt in another way, so logits are compared by check_adapter.py only.
Exit code 1 if anything differs.
"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

VERSIONS = {
    "0.6.2": "4.36.2",
    "0.7.1": "4.37.2",
    "0.9.0": "4.38.2",
    "0.11.1": "4.41.2",
    "0.13.2": "4.46.3",
    "0.15.2": "4.51.3",
    "0.17.1": "4.56.2",
}
# PEFT 0.12 introduced its marker for adapters without LoRA, `dummy-target-modules`.
WITHOUT_LORA = ["preset-qformer", "preset-qformer-projection"]
PRESETS = ["lora", "qformer", "qformer-projection", "lora+qformer"]
ADAPTERS = [f"preset-{preset}" for preset in PRESETS] + ["list", "patterns", "whole-modules"]


def install(folder: Path, peft: str, transformers: str) -> None:
    if (folder / "peft").exists():
        return
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    subprocess.run([*pip, f"transformers=={transformers}"], check=True)
    subprocess.run([*pip, "--no-deps", f"peft=={peft}"], check=True)


def places(name: str) -> list[str]:
    """Where PEFT keeps a stored tensor."""
    module, _, leaf = name.rpartition(".")
    names = [name, name.replace(".base_layer.", "."), f"{module}.default.{leaf}"]
    parts = name.split(".")
    return names + [".".join([*parts[:i], "modules_to_save", "default", *parts[i:]]) for i in range(2, len(parts))]


def check_here(out: Path) -> bool:
    """Checks all adapters with the versions that this process imports."""
    import torch
    import peft
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import Blip2ForConditionalGeneration

    fits = True
    is_old = tuple(map(int, peft.__version__.split(".")[:2])) < (0, 12)
    bases = {entry["name"]: entry.get("base") for entry in json.loads((out / "manifest.json").read_text())}
    for name in [one for one in ADAPTERS if not (is_old and one in WITHOUT_LORA)]:
        adapter = out / f"adapter-{name}"
        try:
            model = Blip2ForConditionalGeneration.from_pretrained(out / bases[adapter.name])
            model = PeftModel.from_pretrained(model, adapter)
            state = model.state_dict()
            stored = load_file(adapter / "adapter_model.safetensors")
            wrong = [
                key
                for key, value in stored.items()
                if not any(place in state and torch.equal(state[place], value) for place in places(key))
            ]
            print(f"  {name}: {len(stored) - len(wrong)} of {len(stored)} tensors in place {' '.join(wrong[:3])}")
            fits = fits and not wrong
        except Exception as error:  # noqa: BLE001
            print(f"  {name}: {type(error).__name__}: {error}")
            fits = False
    return fits


def main() -> None:
    out, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    fits = True
    for peft, transformers in VERSIONS.items():
        install(work / peft, peft, transformers)
        print(f"PEFT {peft}, transformers {transformers}", flush=True)
        environment = {**os.environ, "PYTHONPATH": str(work / peft)}
        fits = subprocess.run([sys.executable, __file__, "--here", str(out)], env=environment).returncode == 0 and fits
    print(json.dumps({"versions": list(VERSIONS), "all": fits}))
    sys.exit(0 if fits else 1)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    if sys.argv[1] == "--here":
        sys.exit(0 if check_here(Path(sys.argv[2])) else 1)
    main()
