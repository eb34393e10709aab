"""Makes packages/blip2/fixtures: a tiny random BLIP-2 checkpoint, a LoRA adapter, and golden numbers for both.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 pillow
    python tools/parity/make_blip2_fixture.py [packages/blip2/fixtures]

fixtures/
  images/*.png           three small pictures of unequal sizes (RGB, RGBA, grey)
  tiny/                  a complete Hugging Face checkpoint: OPT text model, own byte-level BPE, end token "\\n"
  tiny-adapter/          a PEFT LoRA adapter (r 4 on q, k, v, out of the text model; B is not zero)
  golden.json            token ids, masks, labels, generated ids, losses, pixel values (base64 of little-endian float32)
  golden.safetensors     pixel_values, image_features, query_embeds, logits and gradients
Everything is float32 and in evaluation mode (no dropout); attention is the plain ("eager") one.
"""

import base64
import json
import re
import shutil
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

QUERIES, SIDE = 4, 32
CORPUS = [
    "a photo of a red heart on a white wall",
    "a photo of two blue squares and a dog",
    "Question: what colour is the heart? Answer: it's red",
    "Question: how many squares? Answer: two",
]
PROMPTS = ["a photo of", "Question: what colour is the heart? Answer:", "a"]
TARGETS = [" a red heart on a white wall", " it's red", " dog"]
STRINGS = ["a photo of", " a red heart\n", "Question: how many squares? Answer:", "a dog\n", "Answer", "a  dog ", "the wall, the dog?"]
RIGHT = [0, 1]  # rows of the right padded training batch: unequal lengths


def make_images(folder):
    folder.mkdir(parents=True, exist_ok=True)
    red = Image.new("RGB", (48, 40), (250, 240, 220))
    ImageDraw.Draw(red).ellipse((10, 6, 38, 34), fill=(200, 20, 30))
    blue = Image.new("RGBA", (30, 64), (0, 0, 0, 0))
    ImageDraw.Draw(blue).rectangle((4, 8, 24, 28), fill=(20, 40, 220, 255))
    ImageDraw.Draw(blue).rectangle((4, 36, 24, 56), fill=(20, 40, 220, 120))
    grey = Image.new("L", (61, 97))
    grey.putdata([(7 * x ^ 13 * y) % 256 for y in range(97) for x in range(61)])
    for name, image in (("red.png", red), ("blue-alpha.png", blue), ("grey.png", grey)):
        image.save(folder / name, optimize=True)
    return {path.name: Image.open(path) for path in sorted(folder.glob("*.png"))}


def make_tokenizer():
    """A small vocabulary in OPT's layout: <s> 0, <pad> 1, </s> 2 (prepended to every text), <unk> 3; "\\n" is an ordinary piece."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(t, normalized=True, special=True) for t in ("<s>", "<pad>", "</s>", "<unk>")]
    trainer = trainers.BpeTrainer(
        vocab_size=58, special_tokens=specials, show_progress=False, initial_alphabet=list("abcdefghilmnopqrstuwy,?:'QAĊĠ")
    )
    tokenizer.train_from_iterator([line + "\n" for line in CORPUS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="</s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>", model_max_length=64
    )


def make_processor():
    image_processor = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return Blip2Processor(image_processor, make_tokenizer(), num_query_tokens=QUERIES)


def make_config(tokenizer):
    newline = tokenizer.encode("\n", add_special_tokens=False)
    assert len(newline) == 1
    return Blip2Config(
        vision_config=Blip2VisionConfig(
            hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=SIDE, patch_size=8
        ).to_dict(),
        qformer_config=Blip2QFormerConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, encoder_hidden_size=24, vocab_size=64
        ).to_dict(),
        text_config=OPTConfig(
            vocab_size=64, hidden_size=24, ffn_dim=48, num_hidden_layers=2, num_attention_heads=3, max_position_embeddings=64,
            word_embed_proj_dim=24, bos_token_id=2, pad_token_id=1, eos_token_id=newline[0],
        ).to_dict(),
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip


def make_model(config, seed):
    """Large weights, so that every tensor matters and a wrong epsilon, mask or transposition changes the logits."""
    model = Blip2ForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            norm = "norm" in name.lower() and name.endswith("weight")
            std = 0.3 if p.dim() > 1 else 0.1
            p.copy_(torch.randn(p.shape, generator=draw) * std + (1.0 if norm else 0.0))
        model.get_input_embeddings().weight[[0, 1, 2, 3, config.image_token_index]] *= 0.2  # special tokens are seldom generated
    return model


def noise(model, pixels, ids, mask):
    """Difference of float32 and float64, relative to the largest logit of a real token: a lower bound for tolerances."""
    inputs = {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        single = model(pixel_values=pixels, **inputs).logits
        double = model.double()(pixel_values=pixels.double(), **inputs).logits
        model.float()
    return ((single - double)[mask == 1].abs().max() / double[mask == 1].abs().max()).item()


def add_adapter(model, seed):
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.05, target_modules=["q_proj", "k_proj", "v_proj", "out_proj"])
    peft = get_peft_model(model, config).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in peft.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn(p.shape, generator=draw) * 0.2)
    return peft


def rows(processor, texts, side, layout="processor"):
    """Pads texts (each: prompt or prompt + target) to one width. Layouts of left padding: the processor's own
    (images, pads, bos, text) and the plain one (pads, images, bos, text)."""
    tok, image = processor.tokenizer, processor.tokenizer.convert_tokens_to_ids("<image>")
    ids = [tok(t).input_ids for t in texts]
    width, pad = max(map(len, ids)), tok.pad_token_id
    out, mask = [], []
    for row in ids:
        free, images = width - len(row), [image] * QUERIES
        if side == "right":
            out.append(images + row + [pad] * free), mask.append([1] * (QUERIES + len(row)) + [0] * free)
        elif layout == "processor":
            out.append(images + [pad] * free + row), mask.append([1] * QUERIES + [0] * free + [1] * len(row))
        else:
            out.append([pad] * free + images + row), mask.append([0] * free + [1] * (QUERIES + len(row)))
    return torch.tensor(out), torch.tensor(mask)


def labels_of(processor, ids, mask, prompts):
    """Labels only for the target and its end token, not for image, bos, prompt and padding."""
    labels = ids.clone()
    labels[mask == 0] = -100
    labels[ids == processor.tokenizer.convert_tokens_to_ids("<image>")] = -100
    for row, prompt in zip(labels, prompts):
        first = next(i for i, t in enumerate(row.tolist()) if t != -100)
        row[first : first + len(processor.tokenizer(prompt).input_ids)] = -100
    return labels


def tokens_json(ids, mask, labels=None):
    out = {"shape": list(ids.shape), "input_ids": ids.flatten().tolist(), "attention_mask": mask.flatten().tolist()}
    return out | ({} if labels is None else {"labels": labels.flatten().tolist()})


def check_layout(processor, images, texts, ids, mask, side):
    processor.tokenizer.padding_side = side
    made = processor(images=images, text=texts, padding=True, return_tensors="pt")
    assert torch.equal(made.input_ids, ids) and torch.equal(made.attention_mask, mask), "the processor lays rows out differently"


def training_case(processor, model, pixels, side, layout="processor", images=None):
    prompts, targets = [PROMPTS[i] for i in RIGHT], [TARGETS[i] for i in RIGHT]
    texts = [p + t + "\n" for p, t in zip(prompts, targets)]
    ids, mask = rows(processor, texts, side, layout)
    if images is not None:
        check_layout(processor, images, texts, ids, mask, side)
    labels = labels_of(processor, ids, mask, prompts)
    out = model(pixel_values=pixels, input_ids=ids, attention_mask=mask, labels=labels)
    return tokens_json(ids, mask, labels), out


GENERATIONS = [
    ("greedy", {}),
    ("greedy-min-new-tokens", {"min_new_tokens": 9}),
    ("greedy-repetition-penalty", {"repetition_penalty": 1.6}),
    ("greedy-no-repeat-ngram", {"no_repeat_ngram_size": 2}),
    ("greedy-all", {"min_new_tokens": 5, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2}),
    ("beam", {"num_beams": 3}),
    ("beam-length-penalty-0", {"num_beams": 3, "length_penalty": 0.0}),
    ("beam-length-penalty-2", {"num_beams": 3, "length_penalty": 2.0}),
    ("beam-length-penalty-minus-1", {"num_beams": 3, "length_penalty": -1.0}),
    ("beam-early-stopping", {"num_beams": 3, "early_stopping": True, "length_penalty": 2.0}),
    ("beam-5", {"num_beams": 5}),
    ("beam-all", {"num_beams": 3, "min_new_tokens": 4, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "length_penalty": 0.5}),
]


def new_ids(model, pixels, tokens, options):
    """The generated part of each row, up to the end token (excluded)."""
    eos, start = model.config.text_config.eos_token_id, 0 if tokens is None else tokens[0].shape[1]
    if tokens is None:
        start = QUERIES + 1
        out = model.generate(pixel_values=pixels, max_new_tokens=14, do_sample=False, **options)
    else:
        out = model.generate(
            pixel_values=pixels, input_ids=tokens[0], attention_mask=tokens[1], max_new_tokens=14, do_sample=False, **options
        )
    new = [row[start:] for row in out.tolist()]
    return [row[: row.index(eos)] if eos in row else row for row in new]


def generations(processor, model, pixels, prefix=""):
    plain = rows(processor, PROMPTS, "left", "plain")
    inner = rows(processor, PROMPTS, "left")
    bos = (torch.tensor([[model.config.image_token_index] * QUERIES + [2]] * len(pixels)), torch.ones(len(pixels), QUERIES + 1).long())
    cases = []
    for name, options in GENERATIONS:
        for layout, tokens in (("left-padded", plain), ("pads after images", inner), ("pixel_values only", None)):
            ids = new_ids(model, pixels, tokens, options)
            given = tokens if tokens is not None else bos
            cases.append(
                {"name": f"{prefix}{name}, {layout}", "tokens": tokens_json(*given), "options": {"max_new_tokens": 14, **options}, "ids": ids}
            )
    return cases


def default_lengths(config, model, pixels):
    """Prompts near the last position, without max_new_tokens: the default of 20 new tokens ends at that position."""
    draw = torch.Generator().manual_seed(0)
    eos, positions = config.text_config.eos_token_id, config.text_config.max_position_embeddings
    pieces = [i for i in range(4, config.image_token_index) if i != eos]
    cases = []
    for width, beams in ((44, 1), (45, 1), (61, 2), (63, 1)):
        ids, mask = torch.full((3, width), 1), torch.zeros(3, width, dtype=torch.long)
        for row, free in enumerate((3, 0, 9)):
            text = [pieces[i] for i in torch.randint(len(pieces), (width - free - QUERIES - 1,), generator=draw)]
            ids[row, free:] = torch.tensor([config.image_token_index] * QUERIES + [2] + text)
            mask[row, free:] = 1
        options = {"num_beams": beams, "eos_token_id": 3}
        out = model.generate(pixel_values=pixels, input_ids=ids, attention_mask=mask, do_sample=False, **options)
        new = out[:, width:].tolist()
        assert [len(row) for row in new] == [min(20, positions - width)] * 3 and 3 not in sum(new, []), new
        cases.append({"name": f"default length after {width} of {positions} positions", "tokens": tokens_json(ids, mask), "options": options, "ids": new})
    return cases


def is_lively(cases):
    """Whether rows end at different steps, prompts and images matter, and options change the result."""
    by = {c["name"]: c["ids"] for c in cases}
    greedy, beam = by["greedy, left-padded"], by["beam, left-padded"]
    lengths = {len(r) for r in greedy}
    beams = {json.dumps(by[f"beam{p}, left-padded"]) for p in ("", "-length-penalty-0", "-length-penalty-2", "-length-penalty-minus-1")}
    only = by["greedy, pixel_values only"]
    return (
        len(lengths) == 3 and min(lengths) > 0 and max(lengths) == 14 and greedy != beam and len(beams) >= 3
        and len({tuple(r) for r in only}) == 3 and len({len(r) for r in beam}) > 1
        and all(len(set(r)) > 2 for r in greedy + beam)
    )  # fmt: skip


def gradients(model, loss, wanted):
    named = {n: p for n, p in model.named_parameters() if wanted(n)}
    for p in model.parameters():
        p.requires_grad_(True)
    grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), grads)}


def save_checkpoint(model, processor, folder):
    model.save_pretrained(folder)
    processor.tokenizer.padding_side = "right"
    processor.save_pretrained(folder)
    settings = processor.image_processor.to_dict()
    settings["image_processor_type"] = "BlipImageProcessor"  # the name in every released BLIP-2 checkpoint
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def sort_targets(file):
    """Sorts the set that PEFT writes in hash order, so that the fixture is the same in every run."""
    config = json.loads(file.read_text())
    config["target_modules"].sort()
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def compact(value):
    """Indented JSON with each list of numbers on one line."""
    text = json.dumps(value, indent=1)
    return re.sub(r"\[[\s\d.,-]*\]", lambda m: re.sub(r"\s+", "", m[0]), text) + "\n"


def main(root):
    torch.set_num_threads(1)
    for part in ("images", "tiny", "tiny-adapter"):
        shutil.rmtree(root / part, ignore_errors=True)
    images = make_images(root / "images")
    processor = make_processor()
    config = make_config(processor.tokenizer)
    pixels = torch.cat([processor(images=i, return_tensors="pt").pixel_values for i in images.values()])

    for seed in range(1, 4000):
        model = make_model(config, seed)
        if len({len(r) for r in new_ids(model, pixels, rows(processor, PROMPTS, "left", "plain"), {})}) < 3:
            continue
        if noise(model, pixels, *rows(processor, PROMPTS, "right")) > 1e-6:
            continue
        cases = generations(processor, model, pixels)
        if is_lively(cases):
            break
    else:
        raise SystemExit("no seed gives a lively model")
    cases += default_lengths(config, model, pixels)

    pair = [list(images.values())[i] for i in RIGHT]
    golden, floats = {"seed": seed, "cases": {}}, {}
    tok = processor.tokenizer
    golden["token_ids"] = {s: tok.encode(s, add_special_tokens=False) for s in STRINGS}
    golden["decoded"] = {s: tok.decode(tok.encode(s), skip_special_tokens=True) for s in STRINGS}
    golden["prompts"], golden["targets"] = PROMPTS, TARGETS
    golden["pixel_values"] = {n: base64.b64encode(p.numpy().astype("<f4").tobytes()).decode() for n, p in zip(images, pixels)}
    floats["pixel_values"] = pixels
    with torch.no_grad():
        features = model.vision_model(pixels).last_hidden_state
        query = model.qformer(query_embeds=model.query_tokens.expand(len(pixels), -1, -1), encoder_hidden_states=features)[0]
        floats |= {"image_features": features, "query_embeds": model.language_projection(query)}

    full = lambda n: n.startswith(("qformer.", "language_projection.")) or n == "query_tokens"  # noqa: E731
    for name, side, layout in (("right", "right", "processor"), ("left", "left", "processor"), ("left_plain", "left", "plain")):
        tokens, out = training_case(processor, model, pixels[:2], side, layout, pair if layout == "processor" else None)
        golden["cases"][name] = tokens | {"loss": out.loss.item()}
        floats[f"{name}.logits"] = out.logits
        if name == "right":
            floats |= {f"right.grad.{n}": g for n, g in gradients(model, out.loss, full).items()}
    text = tok(PROMPTS[1], return_tensors="pt")
    golden["cases"]["text"] = tokens_json(text.input_ids, text.attention_mask)
    floats["text.logits"] = model.language_model(input_ids=text.input_ids, attention_mask=text.attention_mask).logits

    save_checkpoint(model, processor, root / "tiny")
    peft = add_adapter(model, seed)
    tokens, out = training_case(processor, peft, pixels[:2], "right")
    golden["cases"]["adapter"] = tokens | {"loss": out.loss.item()}
    floats["adapter.logits"] = out.logits
    lora = gradients(peft, out.loss, lambda n: "lora_" in n)
    strip = lambda n: n.removeprefix("base_model.model.").replace(".default", "")  # noqa: E731
    floats |= {f"adapter.grad.{strip(n)}": g for n, g in lora.items()}
    adapted = [c for c in generations(processor, peft.base_model.model, pixels, "adapter ") if c["name"].split(",")[0] in ("adapter greedy", "adapter beam")]
    golden["generate"] = cases + adapted
    peft.save_pretrained(root / "tiny-adapter")
    (root / "tiny-adapter" / "README.md").unlink(missing_ok=True)
    sort_targets(root / "tiny-adapter" / "adapter_config.json")

    (root / "golden.json").write_text(compact(golden))
    save_file({n: t.detach().contiguous().clone() for n, t in floats.items()}, root / "golden.safetensors", metadata={"format": "pt"})
    for file in root.rglob("*.safetensors"):
        file.chmod(0o644)
    size = sum(p.stat().st_size for p in root.rglob("*") if p.is_file())
    print(f"seed {seed}, {len(golden['generate'])} generations, {size / 1000:.0f} kB")
    for c in cases:
        if c["name"].endswith("left-padded"):
            print(f"  {c['name']:45} {[tok.decode(r) for r in c['ids']]}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "packages/blip2/fixtures"))
