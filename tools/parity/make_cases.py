"""Makes tools/parity/cases: golden cases of transformers and PEFT for `npm run parity`. README.md defines the format.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 pillow==13.0.0
    python tools/parity/make_cases.py [--output tools/parity/cases] [CASE ...]

Expected tensors are transformers' in float64, rounded to float32; `noise` is how far transformers' own float32 is from
them. A tolerance is a few times the noise, never above the bound of its rung unless the noise itself is.
"""

import argparse
import copy
import json
import os
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    get_scheduler,
)
from transformers.generation.logits_process import LogitsProcessorList
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

import make_blip2_fixture as tiny

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "packages/blip2/fixtures/tiny"
PICTURES = ROOT / "packages/data-captions/fixtures/images"
QUERIES, IMAGE, NEWLINE = 4, 58, 31

SOFTMAX = torch.nn.functional.softmax
# transformers' OPT computes the softmax in float32, which would lose precision in a float64 run.
torch.nn.functional.softmax = lambda x, *a, dtype=None, **k: SOFTMAX(x, *a, dtype=None if x.dtype == torch.float64 else dtype, **k)

# Largest tolerance of a rung, relative to the largest value; and the smallest, for other orders of summation.
BOUNDS = {
    "features": (1e-4, 3e-6), "states": (1e-4, 3e-6), "logits": (1e-4, 3e-6), "loss": (1e-4, 3e-6),
    "distribution": (1e-4, 3e-6), "gradients": (1e-3, 1e-5), "trajectory": (1e-4, 5e-6), "weights": (1e-3, 1e-5),
}  # fmt: skip
FACTOR = 16


class Case:
    """One folder: case.json and case.safetensors, and what they refer to."""

    def __init__(self, root, name, about, model=None):
        self.folder, self.name = root / name, name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.json = {"format": 1, "about": about} | ({"model": self.path(model)} if model else {}) | {"inputs": {}, "checks": []}
        self.tensors = {}

    def path(self, target):
        """Relative to the case's folder."""
        return Path(os.path.relpath(target, self.folder)).as_posix()

    def store(self, name, tensor):
        tensor = tensor.detach()
        self.tensors[name] = (tensor.float() if tensor.is_floating_point() else tensor).contiguous().clone()
        return name

    def inputs(self, name, ids=None, mask=None, labels=None, pixels=None, **more):
        given = {} if ids is None else tiny.tokens_json(ids, mask, labels)
        if pixels is not None:
            given["pixel_values"] = self.store(f"pixels.{pixels[0]}", pixels[1])
        self.json["inputs"][name] = given | more

    def check(self, rung, name, **content):
        self.json["checks"].append({"rung": rung, "name": name} | content)

    def expect(self, rung, prefix, double, single, mask=None, bound=None, scale=None):
        """Entries {quantity: {tensor, tolerance, noise}} of tensors in float64 and float32 by name. `mask` excludes padding."""
        entries = {}
        for name, exact in double.items():
            keep = torch.ones(exact.shape, dtype=torch.bool) if mask is None else (mask == 1).reshape(mask.shape + (1,) * (exact.dim() - 2)).expand(exact.shape)
            assert torch.isfinite(exact[keep]).all() and torch.isfinite(single[name][keep]).all(), f"{self.name}: {prefix}.{name} is not finite"
            size = max(exact[keep].abs().max().item(), scale or 0.0)
            noise = ((single[name].double() - exact)[keep].abs().max() / size).item()
            most, least = BOUNDS[bound or rung]
            tolerance = max(least, min(most, FACTOR * noise), 4 * noise)
            entries[name] = {"tensor": self.store(f"{prefix}.{name}", exact), "tolerance": float(f"{tolerance:.2g}"), "noise": float(f"{noise:.2g}")}
            if scale:
                entries[name]["scale"] = float(f"{size:.6g}")
        return entries

    def write(self):
        if self.tensors:
            save_file(self.tensors, self.folder / "case.safetensors", metadata={"format": "pt"})
        (self.folder / "case.json").write_text(tiny.compact(self.json))
        for file in self.folder.rglob("*.safetensors"):
            file.chmod(0o644)
        size = sum(p.stat().st_size for p in self.folder.rglob("*") if p.is_file())
        print(f"{self.name:18} {len(self.json['checks']):3} checks, {size / 1000:.0f} kB")


def load(folder):
    """The checkpoint in float32 and in float64, plain attention, evaluation."""
    model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return model, copy.deepcopy(model).double()


def config(vision=None, qformer=None, text=None, **top):
    return Blip2Config(
        vision_config=Blip2VisionConfig(**dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8) | (vision or {})).to_dict(),
        qformer_config=Blip2QFormerConfig(**dict(hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, encoder_hidden_size=16, vocab_size=64) | (qformer or {})).to_dict(),
        text_config=OPTConfig(**dict(vocab_size=64, hidden_size=16, word_embed_proj_dim=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64, bos_token_id=2, pad_token_id=1, eos_token_id=NEWLINE) | (text or {})).to_dict(),
        num_query_tokens=QUERIES, image_token_index=IMAGE, **top,
    )  # fmt: skip


def random_model(cfg, seed, dtype=torch.float32):
    """Large weights, but small embeddings, so that a wrong eps of OPT's norms changes the results."""
    model = tiny.make_model(cfg, seed)
    with torch.no_grad():
        decoder = model.language_model.model.decoder
        decoder.embed_positions.weight *= 0.05
        model.language_projection.weight *= 0.1
        model.language_projection.bias *= 0.1
        if decoder.project_in is None:
            decoder.embed_tokens.weight *= 0.05
            if not cfg.text_config.tie_word_embeddings:
                model.language_model.lm_head.weight.copy_(torch.randn(model.language_model.lm_head.weight.shape, generator=torch.Generator().manual_seed(seed + 1)) * 0.3)
    return model.to(dtype)


def noise_pixels(seed, count=2, height=32, width=32):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def text_rows(side, layout="processor", images=QUERIES):
    """Two rows of unequal length, padded; labels on the last tokens. Layouts as in make_blip2_fixture.rows."""
    texts = [[2, 7, 9, 12, 30, 33, 17, 22, NEWLINE], [2, 40, 11, 8, NEWLINE]]
    width = max(map(len, texts))
    ids, mask = [], []
    for text in texts:
        pads, pictures = [1] * (width - len(text)), [IMAGE] * images
        if side == "right":
            ids.append(pictures + text + pads), mask.append([1] * (images + len(text)) + [0] * len(pads))
        elif layout == "processor":
            ids.append(pictures + pads + text), mask.append([1] * images + [0] * len(pads) + [1] * len(text))
        else:
            ids.append(pads + pictures + text), mask.append([0] * len(pads) + [1] * (images + len(text)))
    ids, mask = torch.tensor(ids), torch.tensor(mask)
    labels = torch.where((mask == 1) & (ids != IMAGE), ids, -100)
    for row in labels:
        first = (row != -100).nonzero()[0, 0]
        row[first : first + 2] = -100  # bos and one token of the prompt
    return ids, mask, labels


# --- the quantities of each rung, of a model in any precision ------------------------------------------------------


def features(model, pixels, **o):
    vision = model.vision_model(pixels, **o)
    image = vision.last_hidden_state
    query = model.qformer(query_embeds=model.query_tokens.expand(len(pixels), -1, -1), encoder_hidden_states=image).last_hidden_state
    return {"image_features": image, "pooled": vision.pooler_output, "qformer": query, "projected": model.language_projection(query)}


def embeds(model, pixels, ids, **o):
    text = model.get_input_embeddings()(ids)
    if pixels is None:
        return text
    return text.masked_scatter((ids == IMAGE)[..., None], features(model, pixels, **o)["projected"].to(text.dtype))


def states(model, pixels, ids, mask, **o):
    """Hidden states of every layer of the three parts."""
    out = {}
    if pixels is not None:
        vision = model.vision_model(pixels, output_hidden_states=True, **o)
        query = model.qformer(query_embeds=model.query_tokens.expand(len(pixels), -1, -1), encoder_hidden_states=vision.last_hidden_state, output_hidden_states=True)
        out |= {f"vision_model.hidden_states.{i}": h for i, h in enumerate(vision.hidden_states)}
        out |= {f"qformer.hidden_states.{i}": h for i, h in enumerate(query.hidden_states)}
    text = model.language_model(inputs_embeds=embeds(model, pixels, ids, **o), attention_mask=mask, output_hidden_states=True)
    return out | {f"language_model.hidden_states.{i}": h for i, h in enumerate(text.hidden_states)}


def logits_of(model, pixels, ids, mask, **o):
    if pixels is None:
        return model.language_model(input_ids=ids, attention_mask=mask).logits
    return model(pixel_values=pixels, input_ids=ids, attention_mask=mask, **o).logits


def loss_of(model, pixels, ids, mask, labels, **o):
    """The model's loss in its own precision: transformers' loss function always computes in float32."""
    logits = logits_of(model, pixels, ids, mask, **o)
    return torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=-100)


def plain(name):
    return name.removeprefix("base_model.model.").replace(".default", "")


def gradients_of(model, wanted, *inputs, **o):
    for p in model.parameters():
        p.requires_grad_(True)
    named = {plain(n): p for n, p in model.named_parameters() if wanted(plain(n))}
    grads = torch.autograd.grad(loss_of(model, *inputs, **o), list(named.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), grads)}


def typed(model, pixels):
    return pixels if pixels is None else pixels.to(next(model.parameters()).dtype)


# --- checks ----------------------------------------------------------------------------------------------------------


def add_features(case, pair, pixels, name, **o):
    with torch.no_grad():
        single, double = (features(m, typed(m, pixels), **o) for m in pair)
    case.check("features", name, inputs=name, expect=case.expect("features", f"features.{name}", double, single))


def add_forward(case, pair, pixels, name, rows, with_states=True, with_loss=True, **o):
    """Hidden states, logits and loss of one batch."""
    ids, mask, labels = rows
    with torch.no_grad():
        if with_states:
            single, double = (states(m, typed(m, pixels), ids, mask, **o) for m in pair)
            lm = {n for n in double if n.startswith("language_model")}
            pick = lambda d, keep: {n: t for n, t in d.items() if (n in lm) == keep}  # noqa: E731
            expect = case.expect("states", f"states.{name}", pick(double, True), pick(single, True), mask)
            if pixels is not None:
                expect = case.expect("states", f"states.{name}", pick(double, False), pick(single, False)) | expect
            case.check("states", name, inputs=name, expect=expect)
        single, double = ({"logits": logits_of(m, typed(m, pixels), ids, mask, **o)} for m in pair)
        case.check("logits", name, inputs=name, expect=case.expect("logits", f"logits.{name}", double, single, mask))
        if with_loss:
            single, double = ({"loss": loss_of(m, typed(m, pixels), ids, mask, labels, **o).reshape(1)} for m in pair)
            case.check("loss", name, inputs=name, expect=case.expect("loss", f"loss.{name}", double, single))


def add_gradients(case, pair, pixels, name, rows, wanted=lambda n: True, **o):
    single, double = (gradients_of(copy.deepcopy(m), wanted, typed(m, pixels), *rows, **o) for m in pair)
    # The true gradient of keys' biases is zero: errors are relative to at least a thousandth of the largest gradient.
    scale = 1e-3 * max(g.abs().max().item() for g in double.values())
    case.check("gradients", name, inputs=name, expect=case.expect("gradients", f"grad.{name}", double, single, scale=scale))


def generated(model, pixels, rows, options, tokenizer=None):
    """New ids of each row, without end tokens and the padding after them."""
    ids, mask = rows
    eos = options.get("eos_token_id", model.config.text_config.eos_token_id)
    eos = eos if isinstance(eos, list) else [eos]
    more = {"tokenizer": tokenizer} if "stop_strings" in options else {}
    if pixels is None:
        out = model.language_model.generate(input_ids=ids, attention_mask=mask, **options, **more)
    else:
        out = model.generate(pixel_values=typed(model, pixels), input_ids=ids, attention_mask=mask, **options, **more)
    rows = [row[ids.shape[1] :] for row in out.tolist()]
    rows = [row[: next((i for i, t in enumerate(row) if t in eos), len(row))] for row in rows]
    while_pad = lambda row: while_pad(row[:-1]) if row and row[-1] == 1 else row  # noqa: E731
    return [while_pad(row) for row in rows]


def add_generations(case, pair, pixels, name, rows, all_options, tokenizer=None):
    for title, options in all_options.items():
        options = {"max_new_tokens": 14} | options
        ids = generated(pair[0], pixels, rows, options, tokenizer)
        if rows[1].all():  # in float64, transformers' generate makes NaN of rows that are padded on the left
            assert ids == generated(pair[1], pixels, rows, options, tokenizer), f"{case.name}, {title}: float32 and float64 disagree; choose another seed"
        case.check("generate", f"{title}, {name}", inputs=name, options=options, ids=ids)


def warped(model, pixels, rows, options):
    """The distribution that sampling draws the first new token from, by transformers' own processors."""
    ids, mask = rows
    logits = logits_of(model, typed(model, pixels), ids, mask)[:, -1]
    lm = model.language_model
    generation, _ = lm._prepare_generation_config(None, do_sample=True, max_new_tokens=14, **options)
    for name, value in {"top_k": 50, "temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_new_tokens": options.get("min_new_tokens")}.items():
        if getattr(generation, name, None) is None:
            setattr(generation, name, value)
    lm._prepare_special_tokens(generation, True)
    chain = lm._get_logits_processor(generation, input_ids_seq_length=ids.shape[1], device="cpu", model_kwargs={"attention_mask": mask}, logits_processor=LogitsProcessorList())
    return torch.softmax(chain(ids, logits), -1)


def add_distributions(case, pair, pixels, name, rows, all_options):
    for title, options in all_options.items():
        with torch.no_grad():
            single, double = ({"probabilities": warped(m, pixels, rows, options)} for m in pair)
        assert torch.equal(single["probabilities"] == 0, double["probabilities"] == 0), f"{title}: float32 and float64 keep other tokens"
        kept = [int((p > 0).sum()) for p in double["probabilities"]]
        case.check("distribution", f"{title}, {name}", inputs=name, options=options, kept=kept,
                   expect=case.expect("distribution", f"probabilities.{title}.{name}", double, single))


def train(model, wanted, batches, steps, o):
    """AdamW as transformers' Trainer uses it, without dropout; losses, norms and final weights in the model's precision."""
    model = copy.deepcopy(model).eval()
    for n, p in model.named_parameters():
        p.requires_grad_(wanted(plain(n)))
    named = {plain(n): p for n, p in model.named_parameters() if p.requires_grad}
    decayed = [p for p in named.values() if p.dim() > 1]
    other = [p for p in named.values() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": o["weight_decay"]}, {"params": other, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=o["learning_rate"], betas=(o["adam_beta1"], o["adam_beta2"]), eps=o["adam_epsilon"])
    scheduler = get_scheduler("cosine", optimizer, 3, steps)
    losses, norms, rates = [], [], []
    for step in range(steps):
        pixels, *rows = batches[step % len(batches)]
        loss = loss_of(model, typed(model, pixels), *rows)
        optimizer.zero_grad()
        loss.backward()
        rates.append(scheduler.get_last_lr()[0])
        norms.append(torch.nn.utils.clip_grad_norm_(list(named.values()), o["max_grad_norm"]).detach())
        optimizer.step()
        scheduler.step()
        losses.append(loss.detach())
    return {"losses": torch.stack(losses), "norms": torch.stack(norms)}, named, rates


def add_trajectory(case, pair, name, batches, inputs, wanted, trains, adapter=None, steps=40, lr=2e-3, beta2=0.98):
    o = {"learning_rate": lr, "adam_beta1": 0.9, "adam_beta2": beta2, "adam_epsilon": 1e-8, "weight_decay": 0.05, "max_grad_norm": 1.0}
    (single, weights1, rates), (double, weights2, _) = (train(m, wanted, batches, steps, o) for m in pair)
    # The true gradient of a key's bias is zero; Adam turns its rounding noise into full steps.
    real = lambda d: {n: p.detach() for n, p in d.items() if not n.endswith("key.bias")}  # noqa: E731
    expect = case.expect("trajectory", f"{name}", double, single)
    expect |= {f"final {n}": e for n, e in case.expect("trajectory", f"{name}.final", real(weights2), real(weights1), bound="weights").items()}
    falls = double["losses"][0] - double["losses"][-1]
    assert falls > 0.1 * double["losses"][0], f"{name}: the loss hardly falls: {double['losses']}"
    case.check("trajectory", f"{name}, {steps} steps", batches=inputs, trains=trains, optimizer=o | {"learning_rates": rates}, expect=expect,
               **({"adapter": case.path(adapter)} if adapter else {}))


# --- cases -----------------------------------------------------------------------------------------------------------


def byte_tokenizer():
    """A vocabulary in OPT's layout with every byte in the alphabet."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(t, normalized=True, special=True) for t in ("<s>", "<pad>", "</s>", "<unk>")]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=specials, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([*tiny.CORPUS, *STRINGS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="</s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>", model_max_length=64)


STRINGS = [
    "", " ", "  ", "\n", "\n\n", "\t", " a", "a ", "a  dog", " \n a", "it's", "IT'S", "don't've", "we'll  they're", "a,b;c", "...", "!?!", "a\u00a0dog",
    "3.14", "1000000", "x86-64", "caf\u00e9", "cafe\u0301", "na\u00efve \u00dcber stra\u00dfe", "\u72ac\u3068\u732b", "\u041f\u0440\u0438\u0432\u0435\u0442", "\u0645\u0631\u062d\u0628\u0627", "\U0001f436", "\U0001f469\u200d\U0001f373 cooks",
    "\U0001f1e9\U0001f1ea", "\ufeffbom", "a\u2028b", "a\u200bb", "\x00\x01", "\ufffd", "<image>", "a <image> b", "</s>", "<pad>x<s>", "<unk>", "<Image>", "< image >",
    "Question: which city is this? Answer:", "http://a.b/c?d=e&f=%20", "snake_case camelCase", "\"quoted\" 'single'", "tab\tand\r\nreturn", "a" * 50, "\u00bd \u00b2 \u2167", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
]  # fmt: skip


def case_processor(root):
    case = Case(root, "processor", "Blip2Processor: pixels of pictures of every kind, ids of difficult strings, rows of texts with an image.")
    folder = case.folder / "processor"
    processor = Blip2Processor(BlipImageProcessorPil(size={"height": 32, "width": 32}), byte_tokenizer(), num_query_tokens=QUERIES)
    tok = processor.tokenizer
    processor.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor.image_processor.to_dict() | {"image_processor_type": "BlipImageProcessor"}, indent=2, sort_keys=True) + "\n")
    image = tok.convert_tokens_to_ids("<image>")
    newline = tok.encode("\n", add_special_tokens=False)[0]
    (folder / "config.json").write_text(json.dumps({"model_type": "blip-2", "num_query_tokens": QUERIES, "image_token_index": image,
                                                    "text_config": {"model_type": "opt", "bos_token_id": 2, "pad_token_id": 1, "eos_token_id": newline}}, indent=2) + "\n")
    case.json["model"] = case.path(folder)
    for file in sorted(PICTURES.iterdir()):
        pixels = processor(images=Image.open(file), return_tensors="pt").pixel_values[0]
        case.check("pixels", file.name, image=case.path(file), expect={"pixel_values": {"tensor": case.store(f"pixel_values.{file.name}", pixels), "tolerance": 0, "noise": 0}})
    ids = [tok.encode(s, add_special_tokens=False) for s in STRINGS]
    case.check("tokens", "difficult strings", texts=STRINGS, ids=ids, decoded=[tok.decode(i, skip_special_tokens=True) for i in ids])
    for side in ("right", "left"):
        tok.padding_side = side
        texts = ["a photo of", "Question: what colour is the heart? Answer:", "a"]
        if side == "left":
            made = processor(images=[Image.new("RGB", (8, 8))] * 3, text=texts, padding=True, return_tensors="pt")
            case.check("prompts", "pads after the images", texts=texts, rows=tiny.tokens_json(made.input_ids, made.attention_mask))
        else:
            prompts, targets = ["a photo of", "Question: how many squares? Answer:"], [" a red heart on a white wall\n", " two\n"]
            made = processor(images=[Image.new("RGB", (8, 8))] * 2, text=[p + t for p, t in zip(prompts, targets)], padding=True, return_tensors="pt")
            case.check("examples", "right padding", prompts=prompts, targets=[t.strip() for t in targets], rows=tiny.tokens_json(made.input_ids, made.attention_mask))
    case.write()


DISTRIBUTIONS = {
    "defaults (top_k 50)": {},
    "temperature 0.7": {"temperature": 0.7},
    "temperature 2, top_k 5": {"temperature": 2.0, "top_k": 5},
    "top_p 0.9": {"top_k": 0, "top_p": 0.9},
    "top_p 0.3": {"top_p": 0.3},
    "top_k 10, top_p 0.6, temperature 1.5": {"top_k": 10, "top_p": 0.6, "temperature": 1.5},
    "repetition_penalty 1.7, min_new_tokens 2, top_k 8": {"repetition_penalty": 1.7, "min_new_tokens": 2, "top_k": 8},
}
MODES = {
    "beams 4, 3 sequences": {"num_beams": 4, "num_return_sequences": 3},
    "beams 2, 20 tokens": {"num_beams": 2, "max_new_tokens": 20},
    "beams 2, 20 tokens, never stop early": {"num_beams": 2, "max_new_tokens": 20, "early_stopping": "never"},
    "beams 3, never stop early": {"num_beams": 3, "early_stopping": "never"},
    "beams 3, never, length_penalty 2": {"num_beams": 3, "early_stopping": "never", "length_penalty": 2.0},
    "beams 3, never, length_penalty 0": {"num_beams": 3, "early_stopping": "never", "length_penalty": 0.0},
    "beams 3, never, length_penalty -1": {"num_beams": 3, "early_stopping": "never", "length_penalty": -1.0, "num_return_sequences": 2},
    "beams 3, early, 3 sequences": {"num_beams": 3, "early_stopping": True, "num_return_sequences": 3},
    "two end tokens": {"eos_token_id": [31, 33]},
    "beams 3, two end tokens": {"eos_token_id": [31, 33], "num_beams": 3},
    "min_new_tokens, two end tokens": {"eos_token_id": [31, 33], "min_new_tokens": 6},
    "sampling with top_k 1": {"do_sample": True, "top_k": 1},
}


def case_pre_norm(root):
    case = Case(root, "opt-pre-norm", "The whole ladder on a pre-norm OPT with tied head; float32, one file; cross-attention in every second layer.", TINY)
    pair = load(TINY)
    model = pair[0]
    processor = Blip2Processor.from_pretrained(TINY)
    pictures = sorted((ROOT / "packages/blip2/fixtures/images").glob("*.png"))
    pixels = torch.cat([processor(images=Image.open(p), return_tensors="pt").pixel_values for p in pictures])
    for name, side, layout in (("right", "right", "processor"), ("left, pads after images", "left", "processor"), ("left", "left", "plain")):
        rows = text_rows(side, layout)
        case.inputs(name, *rows, pixels=("two", pixels[:2]))
        add_forward(case, pair, pixels[:2], name, rows, with_states=name != "left")
    add_features(case, pair, pixels[:2], "right")
    add_gradients(case, pair, pixels[:2], "right", text_rows("right"))
    other = tuple(t.flip(0) for t in text_rows("right"))
    case.inputs("other", *other, pixels=("last", pixels[1:]))
    batches = [(pixels[:2], *text_rows("right")), (pixels[1:], *other)]
    trains = ["^qformer\\.", "^query_tokens$", "^language_projection\\."]
    add_trajectory(case, pair, "Q-Former", batches, ["right", "other"], lambda n: n.startswith(("qformer.", "language_projection.")) or n == "query_tokens", trains)
    add_trajectory(case, pair, "Q-Former, torch's beta2 0.999", batches, ["right", "other"], lambda n: n.startswith(("qformer.", "language_projection.")) or n == "query_tokens", trains, steps=30, beta2=0.999)
    folder = case.folder / "fresh-adapter"
    torch.manual_seed(7)
    lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj", "out_proj"])
    get_peft_model(copy.deepcopy(model), lora).save_pretrained(folder)
    (folder / "README.md").unlink()
    tiny.sort_targets(folder / "adapter_config.json")
    loras = [PeftModel.from_pretrained(copy.deepcopy(m), folder) for m in pair]
    loras[1].double()
    add_trajectory(case, loras, "LoRA", batches, ["right", "other"], lambda n: "lora_" in n, [], adapter=folder, lr=1e-2)
    prompts = tiny.rows(processor, tiny.PROMPTS, "left", "plain")
    case.inputs("left-padded prompts", *prompts, pixels=("three", pixels))
    with torch.no_grad():
        add_generations(case, pair, pixels, "left-padded prompts", prompts, MODES)
        text = processor.tokenizer
        stops = {"stop string": {"stop_strings": ["a"]}, "stop strings over tokens": {"stop_strings": ["he w", "ed d", "t s", "y"]}, "beams 3, stop string": {"stop_strings": ["a", "wo"], "num_beams": 3}}
        add_generations(case, pair, pixels, "left-padded prompts", prompts, stops, text)
    add_distributions(case, pair, pixels, "left-padded prompts", prompts, DISTRIBUTIONS)
    case.write()


def case_post_norm(root):
    case = Case(root, "opt-post-norm", "Post-norm OPT, untied head; cross-attention in every layer; no qkv bias; float32, one file.")
    cfg = config(vision={"qkv_bias": False}, qformer={"cross_attention_frequency": 1}, text={"do_layer_norm_before": False, "tie_word_embeddings": False})
    folder = case.folder / "model"
    random_model(cfg, 11).save_pretrained(folder)
    case.json["model"] = "model"
    pair, pixels = load(folder), noise_pixels(1)
    for name, side in (("right", "right"), ("left", "left")):
        rows = text_rows(side, "plain")
        case.inputs(name, *rows, pixels=("two", pixels))
        add_forward(case, pair, pixels, name, rows)
    add_features(case, pair, pixels, "right")
    add_gradients(case, pair, pixels, "right", text_rows("right"))
    prompt = torch.tensor([[IMAGE] * QUERIES + [2]] * 2)
    case.inputs("bare image", prompt, torch.ones_like(prompt), pixels=("two", pixels))
    with torch.no_grad():
        add_generations(case, pair, pixels, "bare image", (prompt, torch.ones_like(prompt)), {"greedy": {}, "beams 3": {"num_beams": 3}, "repetition_penalty 1.5": {"repetition_penalty": 1.5}})
    case.write()


def case_projected(root):
    case = Case(root, "opt-projected", "word_embed_proj_dim 8 below hidden_size 16 (OPT-350m, post-norm): text only; image input is refused.")
    cfg = config(text={"do_layer_norm_before": False, "word_embed_proj_dim": 8})
    folder = case.folder / "model"
    random_model(cfg, 12).save_pretrained(folder)
    case.json["model"] = "model"
    pair = load(folder)
    for side in ("right", "left"):
        rows = text_rows(side, "plain", images=0)
        case.inputs(side, *rows)
        add_forward(case, pair, None, side, rows)
    add_gradients(case, pair, None, "right", text_rows("right", images=0), lambda n: n.startswith("language_model."))
    ids, mask, _ = text_rows("left", "plain", images=0)
    prompts = ids[:, :-1], mask[:, :-1]
    case.inputs("text prompts", *prompts)
    with torch.no_grad():
        add_generations(case, pair, None, "text prompts", prompts, {"greedy": {}, "beams 3": {"num_beams": 3}})
    case.inputs("image", *text_rows("right"), pixels=("two", noise_pixels(2)))
    case.check("refused", "image input", inputs="image", error="word_embed_proj_dim \\(8\\) must equal hidden_size \\(16\\) for image input")
    case.write()


def case_float16(root):
    case = Case(root, "float16-sharded", "float16 in shards; a head stored beside the embeddings it is said to be tied to, and different; legacy config keys.")
    folder = case.folder / "model"
    model = random_model(config(text={"tie_word_embeddings": False}), 13, torch.float16)
    model.save_pretrained(folder, max_shard_size="40KB")
    file = folder / "config.json"
    cfg = json.loads(file.read_text())
    cfg.pop("dtype", None), cfg["text_config"].pop("dtype", None)
    cfg["text_config"] |= {"torch_dtype": "float16", "tie_word_embeddings": True, "prefix": "</s>", "activation_dropout": 0.0, "classifier_dropout": 0.0, "top_k": 50, "is_decoder": False, "eos_token_id": [NEWLINE]}
    cfg["vision_config"] |= {"dropout": 0.0, "initializer_factor": 1.0, "num_channels": 3, "projection_dim": 512, "torch_dtype": "float16"}
    cfg["qformer_config"] |= {"position_embedding_type": "absolute", "classifier_dropout": None}
    cfg |= {"torch_dtype": "float16", "tie_word_embeddings": False, "use_decoder_only_language_model": True, "initializer_factor": 1.0, "is_encoder_decoder": False}
    file.write_text(json.dumps(cfg, indent=2) + "\n")
    case.json["model"] = "model"
    pair, pixels = load(folder), noise_pixels(3)
    assert not torch.equal(pair[0].language_model.lm_head.weight, pair[0].get_input_embeddings().weight)
    rows = text_rows("right")
    case.inputs("right", *rows, pixels=("two", pixels))
    add_forward(case, pair, pixels, "right", rows, with_states=False)
    prompt = torch.tensor([[IMAGE] * QUERIES + [2]] * 2)
    case.inputs("bare image", prompt, torch.ones_like(prompt), pixels=("two", pixels))
    with torch.no_grad():
        add_generations(case, pair, pixels, "bare image", (prompt, torch.ones_like(prompt)), {"greedy": {}})
    case.write()


def case_bfloat16(root):
    case = Case(root, "bfloat16-head-only", "bfloat16, one file, with lm_head but without embed_tokens (tied); the image token under its new name.")
    folder = case.folder / "model"
    random_model(config(), 14, torch.bfloat16).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["language_model.lm_head.weight"] = tensors.pop("language_model.model.decoder.embed_tokens.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    file = folder / "config.json"
    cfg = json.loads(file.read_text())
    cfg["image_token_id"] = cfg.pop("image_token_index", None) or cfg["image_token_id"]
    file.write_text(json.dumps(cfg, indent=2) + "\n")
    case.json["model"] = "model"
    pair, pixels = load(folder), noise_pixels(4)
    rows = text_rows("left", "plain")
    case.inputs("left", *rows, pixels=("two", pixels))
    add_forward(case, pair, pixels, "left", rows, with_states=False)
    case.write()


def case_larger_images(root):
    case = Case(root, "larger-images", "A 224-pixel checkpoint on its own size, and on 364 x 364 and 140 x 280 with interpolate_pos_encoding.")
    folder = case.folder / "model"
    random_model(config(vision={"image_size": 224, "patch_size": 14, "num_hidden_layers": 1}), 15).save_pretrained(folder)
    case.json["model"] = "model"
    pair = load(folder)
    pictures = [PICTURES / "rgb-300x200.png", PICTURES / "cmyk-48x32.jpg"]
    ids, mask, labels = text_rows("right")
    for height, width in ((224, 224), (364, 364), (140, 280)):
        image_processor = BlipImageProcessorPil(size={"height": height, "width": width})
        pixels = torch.cat([image_processor(Image.open(p), return_tensors="pt").pixel_values for p in pictures])
        name, o = f"{height}x{width}", {} if height == 224 else {"interpolate_pos_encoding": True}
        case.inputs(name, ids, mask, labels, images=[case.path(p) for p in pictures], size={"height": height, "width": width}, **o)
        with torch.no_grad():
            single, double = (features(m, typed(m, pixels), **o) for m in pair)
            kept = ("pooled", "qformer", "projected")  # image_features alone would be most of the file
            single, double = ({n: f[n] for n in kept} | {"image_features": f["image_features"][:, ::41]} for f in (single, double))
        case.check("features", name, inputs=name, every=41, expect=case.expect("features", f"features.{name}", double, single))
        add_forward(case, pair, pixels, name, (ids, mask, labels), with_states=False, **o)
    add_gradients(case, pair, pixels, "140x280", (ids, mask, labels), lambda n: n == "vision_model.embeddings.position_embedding", interpolate_pos_encoding=True)
    prompt = torch.tensor([[IMAGE] * QUERIES + [2]] * 2)
    case.inputs("bare 140x280", prompt, torch.ones_like(prompt), images=[case.path(p) for p in pictures], size={"height": 140, "width": 280}, interpolate_pos_encoding=True)
    with torch.no_grad():
        add_generations(case, pair, pixels, "bare 140x280", (prompt, torch.ones_like(prompt)), {"greedy": {"interpolate_pos_encoding": True}})
    case.check("refused", "140x280 without interpolation", inputs="140x280", without="interpolate_pos_encoding", error="expected pixel_values \\[B, 3, 224, 224\\]")
    case.write()


def case_adapter(root):
    folder = TINY.with_name("tiny-adapter")
    case = Case(root, "adapter", "A PEFT LoRA on q, k, v and out of the text model, its B not zero.", TINY)
    case.json["adapter"] = case.path(folder)
    pair = [PeftModel.from_pretrained(m, folder).eval() for m in load(TINY)]
    pair[1].double()
    pictures = sorted((ROOT / "packages/blip2/fixtures/images").glob("*.png"))
    processor = Blip2Processor.from_pretrained(TINY)
    pixels = torch.cat([processor(images=Image.open(p), return_tensors="pt").pixel_values for p in pictures])[:2]
    rows = text_rows("right")
    case.inputs("right", *rows, pixels=("two", pixels))
    add_forward(case, pair, pixels, "right", rows, with_states=False)
    add_gradients(case, pair, pixels, "right", rows, lambda n: "lora_" in n)
    case.check("merged", "right", inputs="right", expect=case.json["checks"][0]["expect"])
    case.write()


CASES = [case_processor, case_pre_norm, case_post_norm, case_projected, case_float16, case_bfloat16, case_larger_images, case_adapter]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "cases")
    parser.add_argument("only", nargs="*", metavar="CASE", help="part of a maker's name, such as post_norm; all by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for make in CASES:
        if not args.only or any(o in make.__name__ for o in args.only):
            make(args.output.resolve())


if __name__ == "__main__":
    main()
