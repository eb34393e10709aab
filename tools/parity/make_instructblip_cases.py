"""Makes the cases of InstructBLIP in tools/parity/cases, as make_cases.py does for BLIP-2 (README.md defines the format).

    python tools/parity/make_instructblip_cases.py [--output tools/parity/cases] [CASE ...]
"""

import argparse
import copy
import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
)
from transformers.generation.logits_process import LogitsProcessorList

import make_blip2_fixture as tiny
import make_cases as cases
import make_instructblip_fixture as instruct
import make_t5_cases as t5_cases  # also replaces T5's norm by one that keeps float64
import make_t5_fixture as t5
from make_cases import Case, add_gradients, add_trajectory, typed

TINY = cases.ROOT / "packages/blip2/fixtures/tiny-instructblip"
IMAGE = json.loads((TINY / "config.json").read_text())["image_token_index"]


def load(folder):
    """The checkpoint in float32 and in float64, plain attention, evaluation."""
    model = InstructBlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return model, copy.deepcopy(model).double()


def text_rows(side, layout="processor"):
    """As make_t5_cases.text_rows, with instructions of unequal length; padded on the left, their pads count as positions."""
    ids, mask, labels = t5_cases.text_rows(side, layout)
    texts = [[2, 7, 30, 41, 9, 3], [2, 50, 12, 3]]
    width = max(map(len, texts))
    pads = [[0] * (width - len(text)) for text in texts]
    left = side == "left"
    words = [pad + text if left else text + pad for text, pad in zip(texts, pads)]
    read = [[0] * len(pad) + [1] * len(text) if left else [1] * len(text) + [0] * len(pad) for text, pad in zip(texts, pads)]
    return ids, mask, labels, torch.tensor(words), torch.tensor(read)


def inputs(case, name, rows, pixels):
    ids, mask, labels, words, read = rows
    case.inputs(name, ids, mask, labels, pixels=pixels, instructions=tiny.tokens_json(words, read))


# --- the quantities of each rung, as in make_cases --------------------------------------------------------------------


def qformer(model, image, words, read, **o):
    queries = model.query_tokens.expand(len(image), -1, -1)
    mask = torch.cat([torch.ones(queries.shape[:2], dtype=torch.long), read], 1)
    return model.qformer(input_ids=words, attention_mask=mask, query_embeds=queries, encoder_hidden_states=image, **o)


def features(model, pixels, words, read):
    vision = model.vision_model(pixels)
    query = qformer(model, vision.last_hidden_state, words, read).last_hidden_state[:, : t5.QUERIES]
    return {"image_features": vision.last_hidden_state, "pooled": vision.pooler_output, "qformer": query, "projected": model.language_projection(query)}


def states(model, pixels, ids, mask, labels, words, read):
    image = model.vision_model(pixels).last_hidden_state
    query = qformer(model, image, words, read, output_hidden_states=True)
    rows = model.language_projection(query.last_hidden_state[:, : t5.QUERIES])
    text = model.get_input_embeddings()(ids)
    embeds = text.masked_scatter((ids == IMAGE)[..., None], rows.to(text.dtype))
    lm = model.language_model(inputs_embeds=embeds, attention_mask=mask, labels=labels, output_hidden_states=True)
    encoder = {f"language_model.encoder.hidden_states.{i}": h for i, h in enumerate(lm.encoder_hidden_states)}
    decoder = {f"language_model.decoder.hidden_states.{i}": h for i, h in enumerate(lm.decoder_hidden_states)}
    return {f"qformer.hidden_states.{i}": h for i, h in enumerate(query.hidden_states)} | decoder, encoder


def is_causal(model):
    return model.config.use_decoder_only_language_model


def logits_of(model, pixels, ids, mask, labels, words, read):
    return model(pixel_values=pixels, input_ids=ids, attention_mask=mask, labels=labels, qformer_input_ids=words, qformer_attention_mask=read).logits


def loss_of(model, pixels, ids, mask, labels, words, read):
    logits = logits_of(model, pixels, ids, mask, labels, words, read)
    if is_causal(model):
        logits, labels = logits[:, :-1], labels[:, 1:]
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-100)


cases.loss_of = loss_of


def add_forward(case, pair, pixels, name, rows, with_states=True):
    with torch.no_grad():
        if with_states:
            (other1, encoder1), (other2, encoder2) = (states(m, typed(m, pixels), *rows) for m in pair)
            expect = case.expect("states", f"states.{name}", encoder2, encoder1, rows[1])
            case.check("states", name, inputs=name, expect=expect | case.expect("states", f"states.{name}", other2, other1))
        single, double = ({"logits": logits_of(m, typed(m, pixels), *rows)} for m in pair)
        real = rows[1] if is_causal(pair[0]) else None
        case.check("logits", name, inputs=name, expect=case.expect("logits", f"logits.{name}", double, single, real))
        single, double = ({"loss": loss_of(m, typed(m, pixels), *rows).reshape(1)} for m in pair)
        case.check("loss", name, inputs=name, expect=case.expect("loss", f"loss.{name}", double, single))


def add_features(case, pair, pixels, name, rows):
    with torch.no_grad():
        single, double = (features(m, typed(m, pixels), *rows[3:]) for m in pair)
    case.check("features", name, inputs=name, expect=case.expect("features", f"features.{name}", double, single))


def generated(model, pixels, rows, options, tokenizer=None):
    if is_causal(model):
        with torch.no_grad():
            out = model.generate(pixel_values=typed(model, pixels), **rows, **options)
        new = [row[rows["input_ids"].shape[1] :] for row in out.tolist()]
        return [row[: next((i for i, t in enumerate(row) if t == cases.NEWLINE), len(row))] for row in new]
    more = {"tokenizer": tokenizer} if "stop_strings" in options else {}
    with torch.no_grad():
        found = instruct.new_ids(model, typed(model, pixels), rows, options | more)
    while_pad = lambda row: while_pad(row[:-1]) if row and row[-1] == 0 else row  # noqa: E731
    return [while_pad(row) for row in found]


def add_generations(case, pair, pixels, name, rows, all_options, tokenizer=None):
    for title, options in all_options.items():
        options = {"max_new_tokens": 14} | options
        ids = generated(pair[0], pixels, rows, options, tokenizer)
        # in float64, transformers' generate makes NaN of causal rows that are padded on the left
        assert is_causal(pair[0]) or ids == generated(pair[1], pixels, rows, options, tokenizer), f"{case.name}, {title}: float32 and float64 disagree; choose another seed"
        case.check("generate", f"{title}, {name}", inputs=name, options=options, ids=ids)


def warped(model, pixels, rows, options):
    """The distribution that sampling draws the first new token from, by transformers' own processors."""
    start = torch.full((len(pixels), 1), t5_cases.START)
    logits = model(pixel_values=typed(model, pixels), **rows, decoder_input_ids=start).logits[:, -1]
    lm = model.language_model
    generation, _ = lm._prepare_generation_config(None, do_sample=True, max_new_tokens=14, **options)
    for name, value in {"top_k": 50, "temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_new_tokens": options.get("min_new_tokens")}.items():
        if getattr(generation, name, None) is None:
            setattr(generation, name, value)
    lm._prepare_special_tokens(generation, True)
    chain = lm._get_logits_processor(generation, input_ids_seq_length=1, device="cpu", model_kwargs={}, logits_processor=LogitsProcessorList())
    return torch.softmax(chain(start, logits), -1)


cases.warped = warped


# --- cases -----------------------------------------------------------------------------------------------------------


def prompt_inputs(case, name, rows, pixels):
    inputs(case, name, (rows["input_ids"], rows["attention_mask"], None, rows["qformer_input_ids"], rows["qformer_attention_mask"]), pixels)


def case_instructblip(root):
    case = Case(root, "instructblip", "The whole ladder on InstructBLIP with T5: the Q-Former reads the instruction, by its own tokenizer.", TINY)
    pair = load(TINY)
    processor = InstructBlipProcessor.from_pretrained(TINY)
    pixels = t5.pictures(processor)
    for name, side, layout in (("right", "right", "processor"), ("left, pads after images", "left", "processor"), ("left", "left", "plain")):
        rows = text_rows(side, layout)
        inputs(case, name, rows, ("two", pixels[:2]))
        add_forward(case, pair, pixels[:2], name, rows, with_states=name != "left")
    add_features(case, pair, pixels[:2], "right", text_rows("right"))
    add_gradients(case, pair, pixels[:2], "right", text_rows("right"))
    other = tuple(t.flip(0) for t in text_rows("right"))
    inputs(case, "other", other, ("last", pixels[1:]))
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
    config.write_text(config.read_text().replace(str(TINY), "fixtures/tiny-instructblip"))  # no path of this machine
    loras = [PeftModel.from_pretrained(copy.deepcopy(m), folder) for m in pair]
    loras[1].double()
    add_trajectory(case, loras, "LoRA", batches, ["right", "other"], lambda n: "lora_" in n, [], adapter=folder, steps=30, lr=1e-2)
    for name, side in (("right-padded prompts", "right"), ("left-padded prompts", "left")):
        prompts = instruct.rows(processor, tiny.PROMPTS, side)
        prompt_inputs(case, name, prompts, ("three", pixels))
        few = {n: cases.MODES[n] for n in ("beams 2, 20 tokens", "sampling with top_k 1")} | {"greedy": {}}
        add_generations(case, pair, pixels, name, prompts, t5_cases.GENERATIONS | t5_cases.modes() if side == "right" else few)
        if side == "right":
            add_generations(case, pair, pixels, name, prompts, {"beams 3, stop string": {"stop_strings": ["a", "o"], "num_beams": 3}}, processor.tokenizer)
            cases.add_distributions(case, pair, pixels, name, prompts, cases.DISTRIBUTIONS)
    add_texts(case, processor)
    case.write()


def add_texts(case, processor):
    """Rows as transformers' own processor makes them, with those of the Q-Former."""
    processor.tokenizer.padding_side = "right"
    prompts = [*tiny.PROMPTS, "", "Ünknown wörds, and a 猫!"]
    targets = ["a dog", "red", "two", "a wall", "squares"]
    made = processor(images=[Image.new("RGB", (8, 8))] * len(prompts), text=prompts, padding=True, return_tensors="pt")
    words = tiny.tokens_json(made.qformer_input_ids, made.qformer_attention_mask)
    rows = tiny.tokens_json(made.input_ids, made.attention_mask) | {"instructions": words}
    case.check("prompts", "pads on the right", texts=prompts, rows=rows)
    case.check("examples", "instructions", prompts=prompts, targets=targets, rows=rows)


def case_instructblip_float16(root):
    """A float16 file as transformers 4 wrote it, with buffers and T5's embeddings under all their names."""
    case = Case(root, "instructblip-float16", "InstructBLIP in float16 with the config and the names of the Hub's checkpoints.")
    folder = case.folder / "model"
    instruct.make_model(instruct.make_config(IMAGE), 23).half().save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    shared = tensors["language_model.shared.weight"]
    tensors |= {f"language_model.{n}.embed_tokens.weight": shared.clone() for n in ("encoder", "decoder")}
    tensors["qformer.embeddings.position_ids"] = torch.arange(instruct.POSITIONS)[None]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    file = folder / "config.json"
    cfg = json.loads(file.read_text())
    cfg["qformer_config"] |= {"position_embedding_type": "absolute", "torch_dtype": "float16"}
    cfg["text_config"] |= {"torch_dtype": "float16", "task_specific_params": {}, "n_positions": 512}
    cfg |= {"is_encoder_decoder": True, "torch_dtype": "float16"}
    file.write_text(json.dumps(cfg, indent=2) + "\n")
    case.json["model"] = "model"
    pair, pixels = load(folder), cases.noise_pixels(5)
    rows = text_rows("right")
    inputs(case, "right", rows, ("two", pixels))
    add_forward(case, pair, pixels, "right", rows, with_states=False)
    add_gradients(case, pair, pixels, "right", rows, lambda n: "embeddings" in n or "intermediate" in n)
    ids, mask, _, words, read = rows
    prompts = {"input_ids": ids, "attention_mask": mask, "qformer_input_ids": words, "qformer_attention_mask": read}
    add_generations(case, pair, pixels, "right", prompts, {"greedy": {}, "beams 3": {"num_beams": 3}})
    case.write()


def case_instructblip_adapter(root):
    folder = TINY.with_name("tiny-instructblip-adapter")
    case = Case(root, "instructblip-adapter", "A PEFT LoRA on q and v of InstructBLIP's text model, its B not zero.", TINY)
    case.json["adapter"] = case.path(folder)
    pair = [PeftModel.from_pretrained(m, folder).eval() for m in load(TINY)]
    pair[1].double()
    pixels = t5.pictures(InstructBlipProcessor.from_pretrained(TINY))[:2]
    rows = text_rows("right")
    inputs(case, "right", rows, ("two", pixels))
    add_forward(case, pair, pixels, "right", rows, with_states=False)
    add_gradients(case, pair, pixels, "right", rows, lambda n: "lora_" in n)
    case.check("merged", "right", inputs="right", expect=case.json["checks"][0]["expect"])
    case.write()


def case_instructblip_opt(root):
    """The text model of transformers' default configuration; no released checkpoint has it, but a causal one sees the queries elsewhere."""
    case = Case(root, "instructblip-opt", "InstructBLIP with OPT: what causal rows of one picture share depends on the instruction.")
    folder = case.folder / "model"
    plain = cases.config().to_dict()
    part = lambda name: {k: v for k, v in plain[name].items() if k != "model_type"}  # noqa: E731
    words = {"vocab_size": instruct.WORDS, "max_position_embeddings": instruct.POSITIONS}
    config = InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(**part("vision_config")).to_dict(),
        qformer_config=InstructBlipQFormerConfig(**{k: v for k, v in part("qformer_config").items() if k != "use_qformer_text_input"} | words).to_dict(),
        text_config=plain["text_config"], num_query_tokens=cases.QUERIES, image_token_index=cases.IMAGE,
    )  # fmt: skip
    model = InstructBlipForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    draw = torch.Generator().manual_seed(31)
    with torch.no_grad():
        for name, p in model.named_parameters():
            norm = "norm" in name.lower() and name.endswith("weight")
            p.copy_(torch.randn(p.shape, generator=draw) * (0.3 if p.dim() > 1 else 0.1) + (1.0 if norm else 0.0))
    model.save_pretrained(folder)
    case.json["model"] = "model"
    pair, pixels = load(folder), cases.noise_pixels(6)
    _, _, _, words, read = text_rows("right")
    for name, side, layout in (("right", "right", "processor"), ("left", "left", "plain")):
        rows = (*cases.text_rows(side, layout), words, read)
        inputs(case, name, rows, ("two", pixels))
        add_forward(case, pair, pixels, name, rows, with_states=False)
    add_gradients(case, pair, pixels, "right", (*cases.text_rows("right"), words, read), lambda n: "embed" in n or "query_tokens" in n)
    ids, mask, _ = cases.text_rows("left", "plain")
    prompts = {"input_ids": ids[:, :-1], "attention_mask": mask[:, :-1], "qformer_input_ids": words, "qformer_attention_mask": read}
    prompt_inputs(case, "prompts", prompts, ("two", pixels))
    add_generations(case, pair, pixels, "prompts", prompts, {"greedy": {}, "beams 3": {"num_beams": 3}})
    case.write()


CASES = [case_instructblip, case_instructblip_opt, case_instructblip_float16, case_instructblip_adapter]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "cases")
    parser.add_argument("only", nargs="*", metavar="CASE", help="part of a maker's name, such as adapter; all by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for make in CASES:
        if not args.only or any(o in make.__name__ for o in args.only):
            make(args.output.resolve())


if __name__ == "__main__":
    main()
