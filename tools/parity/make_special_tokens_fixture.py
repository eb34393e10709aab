"""Makes packages/data-captions/fixtures/special-tokens.json: which tokens are special in a folder of vocab.json and merges.txt.

    python tools/parity/make_special_tokens_fixture.py

Each case has the files beside vocab.json and merges.txt, the ids that transformers' GPT2Tokenizer gives for TEXTS, and what it
decodes from all ids of the special pieces when it skips special tokens. The vocabulary has no merges: the names below, and GPT-2's 256 bytes.
"""

import json
import tempfile
from pathlib import Path

from transformers import GPT2Tokenizer

FILE = Path(__file__).parents[2] / "packages/data-captions/fixtures/special-tokens.json"
NAMES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<image>"]
OPT = {"unk_token": "<unk>", "bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}
TEXTS = [
    "a<s>b", "a</s>b", " <pad> b", "a<unk>b", "<mask>", "<image>", "a <s> b</s>", "<|endoftext|>", "a <extra> b", "a [X] b", "yes no",
]  # fmt: skip


def token(content, **other):
    return {"__type": "AddedToken", "content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False} | other


def listed(content, special, **other):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": special} | other


def cases(size):
    full = {k: token(v) for k, v in OPT.items()}
    mapped = {k: {n: x for n, x in v.items() if n != "__type"} for k, v in full.items()}
    config, names, added = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
    return {
        "vocab.json and merges.txt alone": {},
        "OPT's tokenizer_config.json": {config: full | {"add_bos_token": True, "tokenizer_class": "GPT2Tokenizer", "errors": "replace"}},
        "names as texts": {config: OPT},
        "OPT's special_tokens_map.json": {names: mapped},
        "special_tokens_map.json before tokenizer_config.json": {config: OPT, names: {"pad_token": "<mask>"}},
        "null for no token": {config: {"unk_token": None, "bos_token": None, "eos_token": "</s>"}},
        "other names, and more special tokens": {config: OPT | {"cls_token": "[X]", "image_token": "<image>", "additional_special_tokens": ["<s>"]}},
        "white space beside a token": {names: {"pad_token": {"content": "<pad>", "lstrip": True, "rstrip": True, "normalized": False, "single_word": False}}},
        "a prefix space": {config: OPT | {"add_prefix_space": True}},
        "added_tokens.json": {added: {"yes": size + 2, "<extra>": size, "[X]": size + 1}},
        "added_tokens.json with pieces of the vocabulary": {names: OPT, added: {"</s>": 2, "<s>": 0}},
        "added_tokens.json with a gap": {added: {"<extra>": 900}},
        "added_tokens_decoder": {config: {"added_tokens_decoder": {
            "1": listed("<pad>", True, lstrip=True), str(size + 1): listed("yes", False), str(size): listed("<extra>", True)}}},
        "added_tokens_decoder and names": {config: OPT | {"added_tokens_decoder": {"1": listed("<pad>", True), "0": listed("<s>", True)}}},
        "added_tokens_decoder in place of the other files": {
            config: {"added_tokens_decoder": {"4": listed("!", False)}}, names: OPT, added: {"<extra>": size}},
    }  # fmt: skip


def alphabet():
    """GPT-2's printable stand-ins of the 256 bytes, in byte order."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(b if b in printable else next(others)) for b in range(256)]


def golden(vocab, files):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in ({"vocab.json": vocab} | files).items():
            (Path(folder) / name).write_text(json.dumps(content))
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n")
        tokenizer = GPT2Tokenizer.from_pretrained(folder)
    every = [*range(4), *range(len(vocab) - 2, len(tokenizer))]
    ids = {text: tokenizer.encode(text, add_special_tokens=False) for text in TEXTS}
    return {"files": files, "ids": ids, "all": every, "without_special": tokenizer.decode(every, skip_special_tokens=True)}


def main():
    vocab = {piece: i for i, piece in enumerate([*NAMES[:4], *alphabet(), *NAMES[4:]])}
    made = {name: golden(vocab, json.loads(json.dumps(files))) for name, files in cases(len(vocab)).items()}
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(case)}" for name, case in made.items())
    FILE.write_text("{\n" + lines + "\n}\n")


main()
