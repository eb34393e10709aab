"""Makes packages/backend-native/fixtures/gptq.json: an int4 weight by GPTQ, from the inputs of a linear layer.

    pip install numpy==2.4.6
    python tools/parity/make_gptq_fixture.py

GPTQ as in the paper (Frantar et al. 2023, algorithm 1) and in `fasterquant` of its code: columns in order, the upper Cholesky factor U of the
inverse of H = XᵀX + 0.01 · mean(diag H), the error of a column divided by U[i, i] times the rest of its row taken off the columns that
follow. Everything is in float64. Of our format: a number is q · step · scale · factor, q from -8 to 7; the scale of a row is its largest
number without factors / 120; the step of 64 columns, from 1 to 16, is the one with the least sum of squares of these errors. Matrices are
whole numbers of 8 bits in base64; weight and inputs are these / 64.
"""

import base64
import json
import pathlib

import numpy as np

OUT = pathlib.Path(__file__).parents[2] / "packages" / "backend-native" / "fixtures" / "gptq.json"
ROWS, COLUMNS, INPUTS = 37, 150, 200


def wave(step, *shape):
    """Repeatable numbers from -1 to 1."""
    return np.sin(1 + step * np.arange(np.prod(shape), dtype=np.float64) ** 1.3).reshape(shape)


def rounded(x):
    """To multiples of 1/64 from -2 to 127/64."""
    return np.clip(np.rint(x * 64), -128, 127) / 64


def packed(x):
    return base64.b64encode(np.rint(x).astype(np.int8).tobytes()).decode()


def round_group(w, u, scale, step):
    """Codes of the columns w [rows, n], the errors to take off later columns [rows, n], and the sum of squares of each row."""
    w = w.copy()
    codes, errors = np.zeros_like(w), np.zeros_like(w)
    for i in range(w.shape[1]):
        codes[:, i] = np.clip(np.rint(w[:, i] / (scale * step)), -8, 7)
        errors[:, i] = (w[:, i] - codes[:, i] * scale * step) / u[i, i]
        w[:, i:] -= np.outer(errors[:, i], u[i, i:])
    return codes, errors, (errors**2).sum(axis=1)


def gptq(weight, inputs, factors):
    inputs, weight = inputs * factors, weight / factors
    H = inputs.T @ inputs
    plain = (inputs / factors).T @ (inputs / factors)
    H += np.diag(0.01 * np.mean(np.diag(plain)) * factors**2)
    U = np.linalg.cholesky(np.linalg.inv(H)).T
    scale = np.abs(weight).max(axis=1) / 120
    w = weight.copy()
    codes, steps = np.zeros(w.shape, dtype=int), []
    for g in range(0, w.shape[1], 64):
        group = slice(g, min(g + 64, w.shape[1]))
        tried = [round_group(w[:, group], U[group, group], scale, step) for step in range(1, 17)]
        best = np.argmin([sums for _, _, sums in tried], axis=0)
        steps.append((best + 1).tolist())
        rows = np.arange(w.shape[0])
        codes[:, group] = np.stack([q for q, _, _ in tried])[best, rows]
        errors = np.stack([e for _, e, _ in tried])[best, rows]
        w[:, group.stop :] -= errors @ U[group, group.stop :]
    return codes, steps


def main():
    weight = rounded(0.5 * wave(0.37, ROWS, COLUMNS) * (1 + 3 * (wave(0.11, ROWS, COLUMNS) > 0.97)))
    common = wave(0.23, INPUTS, 6) @ wave(0.71, 6, COLUMNS)  # inputs that depend on each other
    inputs = rounded(0.2 * wave(0.53, INPUTS, COLUMNS) + 0.4 * common)
    factors = 2.0 ** np.round(wave(0.9, COLUMNS))
    cases = []
    for of in (np.ones(COLUMNS), factors):
        codes, steps = gptq(weight, inputs, of)
        cases.append({"factors": of.tolist(), "codes": packed(codes), "steps": steps})
    numbers = {"weight": packed(weight * 64), "inputs": packed(inputs * 64)}
    facts = {"rows": ROWS, "columns": COLUMNS, "damping": 0.01}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({**facts, **numbers, "cases": cases}) + "\n")


main()
