"""Makes packages/weights/fixtures/dtypes.safetensors: every dtype as torch writes it, with golden float32 values.

    pip install torch==2.13.0 safetensors numpy
    python tools/parity/make_weights_fixture.py
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parents[2] / "packages/weights/fixtures"


def awkward_floats() -> torch.Tensor:
    """Ties, subnormals, limits and ordinary values of both signs, the critical cases of rounding to 16 bits."""
    special = [0.0, 1.0, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, 65504.0, 65519.996, 65520.0, 1e38, 3.4e38]
    special += [2**-14, 2**-14 * (1 - 2**-11), 2**-24, 2**-25, 3 * 2**-25, 2**-26, 5 * 2**-25, 1e-40, 2**-133, float("inf")]
    generator = torch.Generator().manual_seed(0)
    ordinary = torch.randn(200, generator=generator) * torch.logspace(-9, 6, 200)
    values = torch.cat([torch.tensor(special), ordinary])
    return torch.cat([values, -values])


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    x = awkward_floats()
    tensors = {
        "float": x,
        "half": x.to(torch.float16),
        "half.float": x.to(torch.float16).to(torch.float32),
        "bfloat": x.to(torch.bfloat16),
        "bfloat.float": x.to(torch.bfloat16).to(torch.float32),
        "double": x[:32].to(torch.float64) / 3,
        "double.float": (x[:32].to(torch.float64) / 3).to(torch.float32),
        "i64": torch.tensor([[-(2**24), -1, 0], [1, 2**20, 2**24]]),
        "i64.big": torch.tensor([0, 2**40 + 1]),
        "i32": torch.tensor([-7, 7], dtype=torch.int32),
        "i16": torch.tensor([-(2**15), 2**15 - 1], dtype=torch.int16),
        "i8": torch.tensor([-128, 127], dtype=torch.int8),
        "u8": torch.tensor([0, 255, 3], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
    }
    save_file(tensors, OUT / "dtypes.safetensors", metadata={"format": "pt", "made-by": "make_weights_fixture.py"})
    print(f"{OUT / 'dtypes.safetensors'}: {(OUT / 'dtypes.safetensors').stat().st_size} bytes")


if __name__ == "__main__":
    main()
