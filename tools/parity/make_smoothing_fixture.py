"""Makes packages/blip2/fixtures/smoothing.json: losses of transformers' LabelSmoother on small logits.

    pip install torch==2.13.0 transformers==5.23.0
    python tools/parity/make_smoothing_fixture.py
"""

import json
import pathlib

import torch
from transformers.trainer_pt_utils import LabelSmoother

OUT = pathlib.Path(__file__).parents[2] / "packages" / "blip2" / "fixtures" / "smoothing.json"

logits = torch.sin(torch.arange(5 * 7, dtype=torch.float64) * 1.3).reshape(1, 5, 7) * 2
labels = torch.tensor([[3, 0, -100, 6, 3]])
cases = [
    {"epsilon": epsilon, "loss": LabelSmoother(epsilon)({"logits": logits}, labels).item()}
    for epsilon in (0.0, 0.1, 0.5)
]
OUT.write_text(json.dumps({"logits": logits[0].tolist(), "labels": labels[0].tolist(), "cases": cases}) + "\n")
