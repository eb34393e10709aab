"""Makes packages/trainer/fixtures/tensorboard.json: event records as TensorBoard's own writer and protos make them.

    pip install tensorboard==2.21.0
    python tools/parity/make_tensorboard_fixture.py
"""

import io
import json
import pathlib

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.summary.writer.record_writer import RecordWriter

OUT = pathlib.Path(__file__).parents[2] / "packages" / "trainer" / "fixtures" / "tensorboard.json"


def record(event):
    stream = io.BytesIO()
    stream.close = lambda: None
    RecordWriter(stream).write(event.SerializeToString(deterministic=True))
    return stream.getvalue().hex()


def scalars(values, step, wall_time):
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
    event = Event(wall_time=wall_time, step=step, summary=summary)
    return {"values": values, "step": step, "wall_time": wall_time, "hex": record(event)}


def text(tag, markdown, step, wall_time):
    tensor = TensorProto(
        dtype="DT_STRING",
        string_val=[markdown.encode()],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    summary = Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])
    event = Event(wall_time=wall_time, step=step, summary=summary)
    return {"tag": tag, "markdown": markdown, "step": step, "wall_time": wall_time, "hex": record(event)}


OUT.write_text(
    json.dumps(
        {
            "version": record(Event(wall_time=1.5, file_version="brain.Event:2")),
            "scalars": [
                scalars({"train/loss": 2.5}, 1, 1.5),
                scalars({"eval/loss": 0.1, "eval/exact": 0.0, "train/learning_rate": 1e-5}, 300, 1763900000.25),
                scalars({"x" * 200: -3.25}, 123456789, 1763900001.0),
            ],
            "text": text("samples", "| a | b |\n|---|---|\n| é | " + "w" * 150 + " |", 20, 1763900002.5),
        }
    )
    + "\n"
)
