"""Makes packages/data-captions/fixtures/datasets: small data sets in the formats of their own ecosystems.

    pip install datasets==5.2.0 webdataset==1.0.2 pillow==13.0.0
    python tools/parity/make_dataset_fixtures.py [packages/data-captions/fixtures/datasets]

parquet/data/{train,test}-*.parquet   written by `datasets` (snappy), row groups of 2; vqa/ with a list of answers, zstd
parquet-base64/, parquet-lists/        pictures as base64 text, and as lists of {bytes, path}
webdataset/train-000000.tar           written by `webdataset`: png, txt, json; long/ holds a name that needs a pax header
coco/                                 images/, annotations/captions_{train,val}2017.json
vqav2/                                val2014/, v2_OpenEnded_mscoco_val2014_questions.json and its annotations
lavis/                                images/, coco_karpathy_{train,val}.json, vqa_train.json in a folder of its own
csv/                                  metadata.csv as pandas writes it, with quotes, a line break and a JSON list
"""

import base64
import io
import json
import sys
import tarfile
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset
from PIL import Image

CAPTIONS = ["a red square", "a green square, with a comma", 'a "blue" square', "a white\nsquare", "ein gelbes Quadrat – ü"]
COLOURS = [(200, 30, 30), (30, 160, 40), (40, 60, 220), (250, 250, 250), (240, 220, 40)]


def png(i, size=8):
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), COLOURS[i]).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode())


def dataset(rows, features):
    """A data set with a fixed fingerprint; computing one pickles the table, which fails in some versions of Python."""
    table = pa.Table.from_pylist([features.encode_example(row) for row in rows], schema=features.arrow_schema)
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features), fingerprint="fixture")


def parquet(root):
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string"), "id": datasets.Value("int64")})
    for split, rows in {"train": range(4), "test": range(4, 5)}.items():
        data = [{"image": {"bytes": png(i), "path": f"{i}.png"}, "text": CAPTIONS[i], "id": i} for i in rows]
        path = root / "parquet/data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset(data, features).to_parquet(path, batch_size=2)
    vqa = datasets.Features(
        {"image": datasets.Image(), "question": datasets.Value("string"), "answers": datasets.List({"answer": datasets.Value("string"), "answer_id": datasets.Value("int64")})}
    )  # fmt: skip
    answers = [{"answer": a, "answer_id": j} for j, a in enumerate(["red", "red", "dark red"])]
    table = dataset([{"image": {"bytes": png(0), "path": None}, "question": "which colour?", "answers": answers}], vqa)
    (root / "parquet-vqa").mkdir(parents=True, exist_ok=True)
    pq.write_table(table.data.table, root / "parquet-vqa" / "train.parquet", compression="zstd")
    text = [{"image": base64.b64encode(png(i)).decode(), "caption": CAPTIONS[i]} for i in range(3)]
    (root / "parquet-base64").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(text), root / "parquet-base64" / "train.parquet", row_group_size=2)
    lists = [[0], [1], [2, 3]]
    rows = [{"images": [{"bytes": png(i), "path": f"{i}.png"} for i in some], "caption": CAPTIONS[some[0]]} for some in lists]
    (root / "parquet-lists").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), root / "parquet-lists" / "train.parquet")


def wds(root):
    (root / "webdataset").mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(root / "webdataset/train-000000.tar")) as sink:
        for i in range(3):
            sink.write({"__key__": f"{i:06}", "png": png(i), "txt": CAPTIONS[i], "json": {"width": 8, "url": f"made/{i}"}})
    with tarfile.open(root / "webdataset/test-000000.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in [("./deep/" + "n" * 120 + ".jpeg", png(3)), ("./deep/" + "n" * 120 + ".caption", b"a long name")]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def coco(root):
    for split, rows in {"train": [0, 1], "val": [2]}.items():
        for i in rows:
            write(root / f"coco/{split}2017/{i:012}.png", png(i))
        images = [{"id": i, "file_name": f"{i:012}.png", "height": 8, "width": 8, "license": 1} for i in rows]
        notes = [{"id": 10 * i + j, "image_id": i, "caption": CAPTIONS[i] + "!" * j} for i in rows for j in range(2)]
        content = {"info": {"year": 2017}, "licenses": [], "images": images, "annotations": notes}
        write(root / f"coco/annotations/captions_{split}2017.json", content)


def vqav2(root):
    write(root / "vqav2/val2014/COCO_val2014_000000000042.jpg", png(0))
    said = ["red"] * 6 + ["dark red", "pink", "red.", "unanswerable"]
    head = {"info": {}, "license": {}, "data_type": "mscoco", "data_subtype": "val2014"}
    question = {"image_id": 42, "question": "What color is the square?", "question_id": 42000}
    answers = [{"answer": a, "answer_confidence": "yes", "answer_id": j + 1} for j, a in enumerate(said)]
    note = {"question_type": "what color is the", "multiple_choice_answer": "red", "answers": answers, "image_id": 42, "answer_type": "other", "question_id": 42000}
    write(root / "vqav2/v2_OpenEnded_mscoco_val2014_questions.json", {**head, "task_type": "Open-Ended", "questions": [question]})
    write(root / "vqav2/v2_mscoco_val2014_annotations.json", {**head, "annotations": [note]})


def lavis(root):
    for i in range(3):
        write(root / f"lavis/images/{i}.png", png(i))
    write(root / "lavis/coco_karpathy_train.json", [{"caption": CAPTIONS[i], "image": f"{i}.png", "image_id": f"coco_{i}"} for i in (0, 1)])
    write(root / "lavis/coco_karpathy_val.json", [{"image": "2.png", "caption": [CAPTIONS[2], "blue"]}])
    row = {"question_id": 7, "question": "which colour?", "answer": ["red", "red", "pink"], "image": "../images/0.png", "dataset": "vqa"}
    write(root / "lavis/vqa/vqa_train.json", [row])


def csv(root):
    import pandas

    for i in range(3):
        write(root / f"csv/{i}.png", png(i))
    rows = [{"file_name": f"{i}.png", "text": t, "split": s} for i, t, s in [(0, CAPTIONS[2], "train"), (1, CAPTIONS[3], "train"), (2, '["one", "two"]', "val")]]
    pandas.DataFrame(rows).to_csv(root / "csv/metadata.csv", index=False)
    pandas.DataFrame(rows).to_csv(root / "csv/rows.tsv", index=False, sep="\t")


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "packages/data-captions/fixtures/datasets")
    for make in [parquet, wds, coco, vqav2, lavis, csv]:
        make(root)


main()
