"""Makes packages/nn/fixtures/ops.json: values and gradients of the ops that T5 1.1 adds to those of OPT.

    pip install torch==2.13.0 transformers==5.23.0
    python tools/parity/make_ops_fixture.py

Attention with an additive bias is torch's scaled_dot_product_attention, RMSNorm is transformers' T5LayerNorm (which takes the
variance in float32) and the gated GELU is transformers' NewGELUActivation times x, all in float64. A gradient is that of
sum(output * dy).
"""

import json
import pathlib

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.activations import NewGELUActivation
from transformers.models.t5.modeling_t5 import T5LayerNorm

OUT = pathlib.Path(__file__).parents[2] / "packages" / "nn" / "fixtures" / "ops.json"


def wave(step, *shape, scale=1.0):
    """Repeatable numbers in -scale ... scale that are exact in float32."""
    values = scale * torch.sin(1 + step * torch.arange(torch.Size(shape).numel(), dtype=torch.float64))
    return values.float().double().reshape(shape).requires_grad_()


def described(x):
    return {"shape": list(x.shape), "values": [float(f"{value:.9g}") for value in x.detach().flatten().tolist()]}


def case(inputs, f, **facts):
    """The value of f for the named inputs, and its gradient with respect to each."""
    y = f(**inputs)
    dy = wave(0.7, *y.shape).detach()
    grads = torch.autograd.grad((y * dy).sum(), list(inputs.values()))
    return {
        **facts,
        "inputs": {name: described(x) for name, x in inputs.items()},
        "output": described(y),
        "dy": described(dy),
        "grads": {name: described(grad) for name, grad in zip(inputs, grads)},
    }


def attention(name, B, H, Tq, Tk, d, *, items, causal=False, mask=None, scale=None):
    """B items of q, k, v [B, T, H·d]; the bias has `items` (1 or B) of them. `mask` [B][Tk]: 1 keep, 0 hide."""
    seen = torch.ones(B, 1, Tq, Tk, dtype=torch.bool)
    if causal:
        seen &= torch.ones(Tq, Tk, dtype=torch.bool).tril(Tk - Tq)
    if mask:
        seen &= torch.tensor(mask, dtype=torch.bool)[:, None, None, :]

    def heads(x):
        return x.unflatten(-1, (H, d)).transpose(1, 2)

    def f(q, k, v, bias):
        added = bias.masked_fill(~seen, -torch.inf)
        return scaled_dot_product_attention(heads(q), heads(k), heads(v), added, scale=scale).transpose(1, 2).flatten(2)

    inputs = {
        "q": wave(1.3, B, Tq, H * d),
        "k": wave(1.7, B, Tk, H * d),
        "v": wave(2.1, B, Tk, H * d),
        "bias": wave(0.9, items, H, Tq, Tk, scale=2.0),
    }
    return case(inputs, f, name=name, numHeads=H, causal=causal, mask=mask, scale=scale)


def rms_norm(D, eps):
    norm = T5LayerNorm(D, eps).double()

    def f(x, weight):
        return torch.func.functional_call(norm, {"weight": weight}, x)

    return case({"x": wave(1.1, 2, 3, D, scale=3.0), "weight": wave(0.5, D)}, f, eps=eps)


def gated_gelu():
    gelu = NewGELUActivation()
    return case({"gate": wave(0.37, 2, 19, scale=6.0), "x": wave(1.9, 2, 19)}, lambda gate, x: gelu(gate) * x)


cases = {
    "attention": [
        attention("one bias for all items, as T5 has it", 2, 2, 3, 3, 2, items=1, scale=1.0),
        attention("a bias for each item, cross-attention", 2, 2, 2, 5, 3, items=2),
        attention("causal, the keys of one item hidden at its end", 2, 1, 4, 4, 3, items=1, causal=True,
                  mask=[[1, 1, 1, 1], [1, 1, 0, 0]], scale=1.0),
        attention("a cache of keys, and an item that sees nothing", 2, 2, 2, 4, 2, items=2, causal=True,
                  mask=[[0, 1, 1, 1], [0, 0, 0, 0]]),
    ],
    "rmsNorm": [rms_norm(7, 1e-6), rms_norm(16, 1e-2)],
    "gatedGelu": [gated_gelu()],
}
OUT.parent.mkdir(exist_ok=True)
OUT.write_text(json.dumps(cases) + "\n")
