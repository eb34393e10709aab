"""The PyTorch baseline of products.mjs, which starts this script. Needs: pip install torch==2.13.0

Reads lines "float32|bfloat16 M in out milliseconds" and prints, for each, the seconds of the fastest call
(processor time if OMP_NUM_THREADS is 1).
"""

import os
import sys
import time

import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.set_grad_enabled(False)


now = time.process_time if os.environ["OMP_NUM_THREADS"] == "1" else time.perf_counter


def fastest_seconds(call, milliseconds):
    times = []
    end = time.perf_counter() + milliseconds / 1000
    while len(times) < 3 or time.perf_counter() < end:
        start = now()
        call()
        times.append(now() - start)
    return min(times)


prepared = None
for line in sys.stdin:
    name, *sizes, milliseconds = line.split()
    if prepared != (name, sizes):
        M, K, N = map(int, sizes)
        dtype = getattr(torch, name)
        x, weight = torch.randn(M, K, dtype=dtype), torch.randn(N, K, dtype=dtype)
        prepared = (name, sizes)
        torch.nn.functional.linear(x, weight)
    seconds = fastest_seconds(lambda: torch.nn.functional.linear(x, weight), float(milliseconds))
    print(seconds, flush=True)
