"""bitsandbytes on a CPU as on other devices: import this before weights are used.

With AVX512-BF16, bitsandbytes 0.50.2 rounds absmax to bfloat16 and takes only some sizes. Its compiled dequantisation takes wrong absmax for some
blocks where a row is not a whole number of blocks, unlike that for CUDA: fc2 of the tiny BLIP-2 is then 0.143 from the original, not 0.088
(relative). Both are replaced by its own implementation for any device.
"""

import bitsandbytes
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from bitsandbytes.backends.utils import _get_4bit_code

bitsandbytes.nn.modules.has_avx512bf16 = lambda: False


def dequantize_4bit(codes, absmax, blocksize, quant_type, shape, dtype):
    codes = codes.view(torch.uint8).reshape(-1)
    return _dequantize_4bit_compute(codes, absmax, _get_4bit_code(quant_type, codes.device), blocksize, shape, dtype)


override = torch.library.Library("bitsandbytes", "IMPL")
override.impl("dequantize_4bit", dequantize_4bit, "CPU", allow_override=True)
