"""Makes the cases of a T5 text model in tools/parity/cases, as make_cases.py does for OPT (README.md defines the format).

    python tools/parity/make_t5_cases.py [--output tools/parity/cases] [CASE ...]
"""

import argparse
import copy
import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Blip2Processor
from transformers.generation.logits_process import LogitsProcessorList
from transformers.models.t5 import modeling_t5

import make_blip2_fixture as tiny
import make_cases as cases
import make_t5_fixture as t5
from make_cases import Case, add_features, add_gradients, add_trajectory, embeds, features, load, typed

TINY = cases.ROOT / "packages/blip2/fixtures/tiny-t5"
START = 0


def norm(self, x):
    """T5LayerNorm without the float32 variance, which would lose precision in a float64 run."""
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


modeling_t5.T5LayerNorm.forward = norm


def text_rows(side, layout="processor"):
    """Encoder rows of unequal length, with their end token; target rows with theirs, of which the first token of one is not learned."""
    texts = [[7, 9, 12, 30, 33, 17, 22, 40, 5, 1], [40, 11, 8, 1]]
    width = max(map(len, texts))
    ids, mask = [], []
    for text in texts:
        free = width - len(text)
        pads, pictures = [0] * free, [IMAGE] * t5.QUERIES
        if side == "right":
            ids.append(pictures + text + pads), mask.append([1] * (t5.QUERIES + len(text)) + [0] * free)
        elif layout == "processor":
            ids.append(pictures + pads + text), mask.append([1] * t5.QUERIES + [0] * free + [1] * len(text))
        else:
            ids.append(pads + pictures + text), mask.append([0] * free + [1] * (t5.QUERIES + len(text)))
    labels = torch.tensor([[21, 14, 35, 8, 19, 6, 1], [-100, 26, 1, -100, -100, -100, -100]])
    return torch.tensor(ids), torch.tensor(mask), labels


IMAGE = json.loads((TINY / "config.json").read_text())["image_token_index"] if TINY.exists() else None


# --- the quantities of each rung, as in make_cases --------------------------------------------------------------------


def states(model, pixels, ids, mask, labels):
    lm = model.language_model(inputs_embeds=embeds(model, pixels, ids), attention_mask=mask, labels=labels, output_hidden_states=True)
    encoder = {f"language_model.encoder.hidden_states.{i}": h for i, h in enumerate(lm.encoder_hidden_states)}
    return encoder, {f"language_model.decoder.hidden_states.{i}": h for i, h in enumerate(lm.decoder_hidden_states)}


def logits_of(model, pixels, ids, mask, labels):
    return model(pixel_values=pixels, input_ids=ids, attention_mask=mask, labels=labels).logits


def loss_of(model, *inputs):
    logits, labels = logits_of(model, *inputs), inputs[-1]
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-100)


cases.loss_of = loss_of
cases.IMAGE = IMAGE


def add_forward(case, pair, pixels, name, rows, with_states=True):
    with torch.no_grad():
        if with_states:
            (encoder1, decoder1), (encoder2, decoder2) = (states(m, typed(m, pixels), *rows) for m in pair)
            expect = case.expect("states", f"states.{name}", encoder2, encoder1, rows[1])
            case.check("states", name, inputs=name, expect=expect | case.expect("states", f"states.{name}", decoder2, decoder1))
        single, double = ({"logits": logits_of(m, typed(m, pixels), *rows)} for m in pair)
        case.check("logits", name, inputs=name, expect=case.expect("logits", f"logits.{name}", double, single))
        single, double = ({"loss": loss_of(m, typed(m, pixels), *rows).reshape(1)} for m in pair)
        case.check("loss", name, inputs=name, expect=case.expect("loss", f"loss.{name}", double, single))


def generated(model, pixels, rows, options, tokenizer=None):
    more = {"tokenizer": tokenizer} if "stop_strings" in options else {}
    with torch.no_grad():
        found = t5.new_ids(model, typed(model, pixels), rows, options | more)
    while_pad = lambda row: while_pad(row[:-1]) if row and row[-1] == 0 else row  # noqa: E731
    return [while_pad(row) for row in found]


def add_generations(case, pair, pixels, name, rows, all_options, tokenizer=None):
    for title, options in all_options.items():
        options = {"max_new_tokens": 14} | options
        ids = generated(pair[0], pixels, rows, options, tokenizer)
        assert ids == generated(pair[1], pixels, rows, options, tokenizer), f"{case.name}, {title}: float32 and float64 disagree; choose another seed"
        case.check("generate", f"{title}, {name}", inputs=name, options=options, ids=ids)


def warped(model, pixels, rows, options):
    """The distribution that sampling draws the first new token from, by transformers' own processors."""
    ids, mask = rows
    start = torch.full((len(ids), 1), START)
    logits = model(pixel_values=typed(model, pixels), input_ids=ids, attention_mask=mask, decoder_input_ids=start).logits[:, -1]
    lm = model.language_model
    generation, _ = lm._prepare_generation_config(None, do_sample=True, max_new_tokens=14, **options)
    for name, value in {"top_k": 50, "temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_new_tokens": options.get("min_new_tokens")}.items():
        if getattr(generation, name, None) is None:
            setattr(generation, name, value)
    lm._prepare_special_tokens(generation, True)
    chain = lm._get_logits_processor(generation, input_ids_seq_length=1, device="cpu", model_kwargs={}, logits_processor=LogitsProcessorList())
    return torch.softmax(chain(start, logits), -1)


cases.warped = warped

GENERATIONS = {
    "greedy": {},
    "greedy, default length": {"max_new_tokens": 20, "eos_token_id": [63]},
    "min_new_tokens": {"min_new_tokens": 9},
    "repetition_penalty": {"repetition_penalty": 1.6},
    "repetition_penalty below 1": {"repetition_penalty": 0.7},
    "no_repeat_ngram_size 2": {"no_repeat_ngram_size": 2},
    "no_repeat_ngram_size 1": {"no_repeat_ngram_size": 1},
    "all rules": {"min_new_tokens": 5, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    "beams 3": {"num_beams": 3},
    "beams 3, length_penalty 0": {"num_beams": 3, "length_penalty": 0.0},
    "beams 3, all rules": {"num_beams": 3, "min_new_tokens": 4, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "length_penalty": 0.5},
}


# --- cases -----------------------------------------------------------------------------------------------------------


def processor_and_pixels():
    return Blip2Processor.from_pretrained(TINY), t5.pictures(Blip2Processor.from_pretrained(TINY))


def case_t5(root):
    case = Case(root, "t5", "The whole ladder on T5 1.1 as in blip2-flan-t5-xl: exact GELU with a gate, untied head, Unigram tokenizer.", TINY)
    pair = load(TINY)
    assert not torch.equal(pair[0].language_model.lm_head.weight, pair[0].language_model.shared.weight)
    processor, pixels = processor_and_pixels()
    for name, side, layout in (("right", "right", "processor"), ("left, pads after images", "left", "processor"), ("left", "left", "plain")):
        rows = text_rows(side, layout)
        case.inputs(name, *rows, pixels=("two", pixels[:2]))
        add_forward(case, pair, pixels[:2], name, rows, with_states=name != "left")
    add_features(case, pair, pixels[:2], "right")
    add_gradients(case, pair, pixels[:2], "right", text_rows("right"))
    other = tuple(t.flip(0) for t in text_rows("right"))
    case.inputs("other", *other, pixels=("last", pixels[1:]))
    batches = [(pixels[:2], *text_rows("right")), (pixels[1:], *other)]
    wanted = lambda n: n.startswith(("qformer.", "language_projection.")) or n == "query_tokens"  # noqa: E731
    trains = ["^qformer\\.", "^query_tokens$", "^language_projection\\."]
    add_trajectory(case, pair, "Q-Former", batches, ["right", "other"], wanted, trains, steps=30, beta2=0.999)
    folder = case.folder / "fresh-adapter"
    torch.manual_seed(7)
    get_peft_model(copy.deepcopy(pair[0]), LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["q", "v"])).save_pretrained(folder)
    (folder / "README.md").unlink()
    config = folder / "adapter_config.json"
    tiny.sort_targets(config)
    config.write_text(config.read_text().replace(str(TINY), "fixtures/tiny-t5"))  # no path of this machine
    loras = [PeftModel.from_pretrained(copy.deepcopy(m), folder) for m in pair]
    loras[1].double()
    add_trajectory(case, loras, "LoRA", batches, ["right", "other"], lambda n: "lora_" in n, [], adapter=folder, steps=30, lr=1e-2)
    for name, side, layout in (("right-padded prompts", "right", "processor"), ("left-padded prompts", "left", "plain")):
        prompts = t5.rows(processor, tiny.PROMPTS, side, layout)
        case.inputs(name, *prompts, pixels=("three", pixels))
        left = {n: cases.MODES[n] for n in ("beams 2, 20 tokens", "sampling with top_k 1")} | {"greedy": {}}
        add_generations(case, pair, pixels, name, prompts, GENERATIONS | modes() if side == "right" else left)
        if side == "right":
            stops = {"stop string": {"stop_strings": ["a"]}, "beams 3, stop string": {"stop_strings": ["a", "o"], "num_beams": 3}}
            add_generations(case, pair, pixels, name, prompts, stops, processor.tokenizer)
            cases.add_distributions(case, pair, pixels, name, prompts, cases.DISTRIBUTIONS)
    bare = torch.tensor([[IMAGE] * t5.QUERIES + [1]] * 3)
    case.inputs("bare image", bare, torch.ones_like(bare), pixels=("three", pixels))
    add_generations(case, pair, pixels, "bare image", None, {"greedy": {}, "beams 3": {"num_beams": 3}})
    add_texts(case, processor)
    case.write()


def modes():
    """make_cases' modes, with this model's end tokens."""
    change = lambda o: o | ({"eos_token_id": [1, 33]} if "eos_token_id" in o else {})  # noqa: E731
    return {title: change(options) for title, options in cases.MODES.items()}


def add_texts(case, processor):
    """Ids of difficult strings and of rows, which end with </s>."""
    tok = processor.tokenizer
    # Released checkpoints have a normalizer that turns a byte order mark into a space; without it, JavaScript and Rust disagree on it.
    strings = [s for s in cases.STRINGS if "</s>" not in s and "<pad>" not in s and "\ufeff" not in s]
    case.check("tokens", "difficult strings", texts=strings, ids=[tok.encode(s, add_special_tokens=False) for s in strings],
               decoded=[tok.decode(tok.encode(s, add_special_tokens=False), skip_special_tokens=True) for s in strings])
    tok.padding_side = "right"
    made = processor(images=[Image.new("RGB", (8, 8))] * 3, text=tiny.PROMPTS, padding=True, return_tensors="pt")
    rows = tiny.tokens_json(made.input_ids, made.attention_mask)
    case.check("prompts", "pads on the right", texts=tiny.PROMPTS, rows=rows)
    case.check("examples", "prompts of the encoder", prompts=tiny.PROMPTS, targets=["a dog", "red", "two"], rows=rows)


def case_t5_tied(root):
    """A float16 file as transformers 4 wrote it: every embedding stored, one of them tied to the head."""
    case = Case(root, "t5-tied", "T5 1.0 in float16: relu, tied and scaled head; embeddings stored under all their names, a bias that nothing reads.")
    folder = case.folder / "model"
    config = t5.make_config(IMAGE, feed_forward_proj="relu", dense_act_fn="relu", tie_word_embeddings=True, num_heads=2)
    t5.make_model(config, 21, head=False).half().save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    shared = next(t for n, t in tensors.items() if t.shape == (t5.VOCABULARY, 24))
    tensors |= {f"language_model.{n}.weight": shared.clone() for n in ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head")}
    tensors["language_model.decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.zeros(8, 2, dtype=torch.float16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    file = folder / "config.json"
    cfg = json.loads(file.read_text())
    cfg["text_config"].pop("scale_decoder_outputs", None), cfg["text_config"].pop("is_gated_act", None), cfg["text_config"].pop("dense_act_fn", None)
    cfg["text_config"] |= {"tie_word_embeddings": True, "torch_dtype": "float16", "task_specific_params": {}, "n_positions": 512}
    cfg |= {"use_decoder_only_language_model": False, "is_encoder_decoder": True}
    file.write_text(json.dumps(cfg, indent=2) + "\n")
    case.json["model"] = "model"
    pair, pixels = load(folder), cases.noise_pixels(5)
    assert pair[0].language_model.config.scale_decoder_outputs
    rows = text_rows("right")
    case.inputs("right", *rows, pixels=("two", pixels))
    add_forward(case, pair, pixels, "right", rows, with_states=False)
    add_gradients(case, pair, pixels, "right", rows, lambda n: "shared" in n or "relative_attention_bias" in n)
    bare = torch.tensor([[IMAGE] * t5.QUERIES + [1]] * 2)
    case.inputs("bare image", bare, torch.ones_like(bare), pixels=("two", pixels))
    add_generations(case, pair, pixels, "bare image", None, {"greedy": {}, "beams 3": {"num_beams": 3}})
    case.write()


def case_t5_adapter(root):
    folder = TINY.with_name("tiny-t5-adapter")
    case = Case(root, "t5-adapter", "A PEFT LoRA on q and v of the T5 text model, its B not zero.", TINY)
    case.json["adapter"] = case.path(folder)
    pair = [PeftModel.from_pretrained(m, folder).eval() for m in load(TINY)]
    pair[1].double()
    pixels = processor_and_pixels()[1][:2]
    rows = text_rows("right")
    case.inputs("right", *rows, pixels=("two", pixels))
    add_forward(case, pair, pixels, "right", rows, with_states=False)
    add_gradients(case, pair, pixels, "right", rows, lambda n: "lora_" in n)
    case.check("merged", "right", inputs="right", expect=case.json["checks"][0]["expect"])
    case.write()


CASES = [case_t5, case_t5_tied, case_t5_adapter]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "cases")
    parser.add_argument("only", nargs="*", metavar="CASE", help="part of a maker's name, such as tied; all by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for make in CASES:
        if not args.only or any(o in make.__name__ for o in args.only):
            make(args.output.resolve())


if __name__ == "__main__":
    main()
