"""PyTorch's side of gemm.mjs. Needs: pip install torch==2.13.0"""

import sys
import time

import torch

threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
torch.set_num_threads(threads)
torch.set_grad_enabled(False)
SHAPES = [
    (1560, 192, 768),
    (1560, 768, 192),
    (1560, 192, 192),
    (2048, 1408, 6144),
    (512, 2560, 2560),
    (1560, 192, 16),
]


def fastest_seconds(call):
    for _ in range(2):
        call()
    times = []
    end = time.perf_counter() + 0.6
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


print(f"PyTorch {torch.__version__}, {threads} threads: GFLOP/s")
for M, K, N in SHAPES:
    x, w, y = torch.randn(M, K), torch.randn(N, K), torch.randn(M, N)
    dx, dw = torch.empty(M, K), torch.empty(N, K)
    out = torch.empty(M, N)
    gflop = 2 * M * K * N / 1e9
    forms = [
        ("x·Wᵀ", lambda: torch.mm(x, w.t(), out=out)),
        ("dy·W", lambda: torch.mm(y, w, out=dx)),
        ("dyᵀ·x", lambda: torch.mm(y.t(), x, out=dw)),
    ]
    rates = "   ".join(f"{name} {gflop / fastest_seconds(call):4.0f}" for name, call in forms)
    print(f"{f'M={M} in={K} out={N}':28} {rates}")
