"""Reads a run's event file with TensorBoard and compares it with metrics.jsonl.

    pip install tensorboard==2.21.0
    python tools/parity/check_tensorboard.py runs/mine
"""

import json
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = pathlib.Path(sys.argv[1])
events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}).Reload()
single = lambda x: struct.unpack("f", struct.pack("f", x))[0]
expected = {}
for line in (run / "metrics.jsonl").read_text().splitlines():
    row = json.loads(line)
    for name, value in row.items():
        if name != "step":
            tag = f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}"
            expected.setdefault(tag, []).append((row["step"], single(value)))
found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
assert found == expected, f"TensorBoard reads {found}, metrics.jsonl holds {expected}"
texts = [(e.step, e.tensor_proto.string_val[0].decode()) for tag in events.Tags()["tensors"] for e in events.Tensors(tag)]
print(f"{sum(map(len, found.values()))} values of {len(found)} scalars agree; {len(texts)} texts")
for step, text in texts:
    print(step, repr(text))
