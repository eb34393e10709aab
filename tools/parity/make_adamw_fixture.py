"""Makes packages/nn/fixtures/adamw.json: updates of torch.optim.AdamW in float32, after one step and after ten.

    pip install torch==2.13.0
    python tools/parity/make_adamw_fixture.py

The first case is a parameter and a gradient of 1 at torch's default betas, where a rounded beta2 shows in v.
"""

import json
import pathlib

import torch

OUT = pathlib.Path(__file__).parents[2] / "packages" / "nn" / "fixtures" / "adamw.json"

SETTINGS = [
    {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
    {"lr": 1e-4, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.05},
    {"lr": 3e-5, "betas": (0.95, 0.9999), "eps": 1e-8, "weight_decay": 0.1},
    {"lr": 5e-2, "betas": (0.4, 0.999), "eps": 1e-12, "weight_decay": 0.01},
    {"lr": 1e-3, "betas": (0.0, 0.95), "eps": 1e-3, "weight_decay": 0.3},
]
SIZE = 16


def wave(step, scale=1.0):
    return (scale * torch.sin(1 + step * torch.arange(SIZE, dtype=torch.float64))).float()


def numbers(x):
    return [float(f"{value:.9g}") for value in x.detach().tolist()]


def course(start, grads, settings):
    param = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW([param], **settings, foreach=False)
    after = {}
    for step, grad in enumerate(grads, 1):
        param.grad = grad.clone()
        optimizer.step()
        if step in (1, len(grads)):
            state = optimizer.state[param]
            after[step] = {"param": numbers(param), "m": numbers(state["exp_avg"]), "v": numbers(state["exp_avg_sq"])}
    return {**settings, "param": numbers(start), "grads": [numbers(g) for g in grads], "after": after}


cases = [course(torch.ones(1), [torch.ones(1)] * 10, SETTINGS[0])]
for i, settings in enumerate(SETTINGS):
    # From large gradients to those near eps.
    grads = [wave(0.3 + 0.1 * t + 0.01 * i) * 10.0 ** torch.linspace(1, -7, SIZE) for t in range(10)]
    cases.append(course(wave(0.7 + 0.1 * i), grads, settings))
OUT.write_text(json.dumps(cases) + "\n")
print(OUT, OUT.stat().st_size, "bytes")
