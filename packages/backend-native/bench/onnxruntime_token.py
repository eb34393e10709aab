"""onnxruntime's 4-bit matmul for the matrices of one token of OPT-2.7b: the other side of token.mjs.

Reads lines "rows" from stdin, and prints the seconds of one pass over all layers for each. MatMulNBits has blocks of 64 columns with one
float32 scale each, and int8 activations (accuracy_level 4), as ours.
"""

import argparse
import sys
import time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SHAPES = [(2560, 2560)] * 4 + [(10240, 2560), (2560, 10240)]
BLOCK = 64


def graph(layers):
    """Every product has its own weight; all of one width read the same input, as in token.mjs."""
    draw = np.random.default_rng(0)
    nodes, weights, outputs = [], [], []
    for i in range(layers):
        for j, (N, K) in enumerate(SHAPES):
            name = f"{i}.{j}"
            codes = draw.integers(0, 256, (N, K // BLOCK, BLOCK // 2), dtype=np.uint8)
            scales = np.full(N * K // BLOCK, 0.01, np.float32)
            weights += [numpy_helper.from_array(codes, f"{name}.codes"), numpy_helper.from_array(scales, f"{name}.scales")]
            nodes.append(
                helper.make_node("MatMulNBits", [f"x{K}", f"{name}.codes", f"{name}.scales"], [f"{name}.y"], domain="com.microsoft",
                                 K=K, N=N, bits=4, block_size=BLOCK, accuracy_level=4)
            )  # fmt: skip
            outputs.append(helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, ["M", N]))
    inputs = [helper.make_tensor_value_info(f"x{K}", TensorProto.FLOAT, ["M", K]) for K in (2560, 10240)]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(helper.make_graph(nodes, "token", inputs, outputs, weights), opset_imports=opsets, ir_version=10)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=8)
    a = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = a.threads
    # no busy waiting between two measurements, which would slow the other side down
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(graph(a.layers).SerializeToString(), options, providers=["CPUExecutionProvider"])
    for line in sys.stdin:
        M = int(line)
        x = {f"x{K}": np.sin(np.arange(M * K, dtype=np.float32)).reshape(M, K) for K in (2560, 10240)}
        begin = time.perf_counter()
        session.run(None, x)
        print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main()
