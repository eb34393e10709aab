"""Makes packages/peft-lora/fixtures: a tiny random BLIP-2, adapters written by PEFT, and PEFT's results with them.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2
    python tools/parity/make_peft_fixture.py

base/       the model in Hugging Face format
adapter/    LoRA on q_proj, k_proj, v_proj, out_proj; B is not zero
mixed/      LoRA by regular expression with rank and alpha patterns and rslora, stored in bf16, and modules_to_save
golden.safetensors   inputs, logits without and with each adapter, and the weights that PEFT merges
matching.json        for many configurations: the modules PEFT adapts, their ranks and scalings, and the line it prints
old/        adapter/ as PEFT before 0.8 stored it: adapter_model.bin, and a configuration of PEFT 0.3
variants/NAME/       one adapter for every option that changes results or files
variants.safetensors labels, and for each variant PEFT's logits, loss and the gradient of every tensor it trains
weighted.safetensors logits of combinations that PEFT's add_weighted_adapter makes of variants/first and variants/second
"""

import contextlib
import io
import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import Blip2Config, Blip2ForConditionalGeneration

OUT = Path(__file__).resolve().parents[2] / "packages/peft-lora/fixtures"
QUERIES, IMAGE = 4, 4
OPT = ["q_proj", "k_proj", "v_proj", "out_proj"]


def config() -> Blip2Config:
    return Blip2Config(
        vision_config=dict(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
        ),
        qformer_config=dict(
            hidden_size=12, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=50,
            cross_attention_frequency=2, encoder_hidden_size=16,
        ),
        text_config=dict(
            model_type="opt", vocab_size=50, hidden_size=16, word_embed_proj_dim=16, ffn_dim=24, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=32, bos_token_id=2, pad_token_id=1, eos_token_id=2,
        ),
        num_query_tokens=QUERIES,
        image_token_index=IMAGE,
    )  # fmt: skip


def base() -> Blip2ForConditionalGeneration:
    """Makes every parameter random, also those that are initialised to 0 or 1, so that ignoring one changes the results."""
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(config()).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            offset = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.normal_(offset, 0.2)
    return model


def inputs() -> dict[str, torch.Tensor]:
    """Two rows of unequal length: image tokens, bos, text; the second row is padded on the right."""
    rows = [[IMAGE] * QUERIES + [2, 11, 12, 13, 14, 2], [IMAGE] * QUERIES + [2, 21, 22, 1, 1, 1]]
    mask = [[1] * 10, [1] * 7 + [0] * 3]
    return {
        "pixel_values": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)),
        "input_ids": torch.tensor(rows),
        "attention_mask": torch.tensor(mask),
    }


def adapt(lora: LoraConfig) -> PeftModel:
    model = get_peft_model(base(), lora).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def adapted(model: torch.nn.Module) -> dict[str, LoraLayer]:
    found = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    return {name.removeprefix("base_model.model."): module for name, module in found.items()}


def golden_adapters() -> None:
    case = inputs()
    golden = dict(case, **{"logits.base": base()(**case).logits.detach()})
    for folder, lora in {
        "adapter": LoraConfig(r=4, lora_alpha=8, lora_dropout=0.05, target_modules=OPT),
        "mixed": LoraConfig(
            r=2, lora_alpha=3, use_rslora=True,
            target_modules=r".*\.layers\.\d+\.(self_attn\.(qkv|v_proj)|mlp\.fc1|fc2)",
            rank_pattern={"v_proj": 3, r"layers\.1\.mlp\.fc1": 1}, alpha_pattern={"language_model.*fc2": 5},
            modules_to_save=["language_projection"],
        ),
    }.items():  # fmt: skip
        model = adapt(lora)
        if folder == "mixed":
            model = model.to(torch.bfloat16).to(torch.float32)
        shutil.rmtree(OUT / folder, ignore_errors=True)
        (model.to(torch.bfloat16) if folder == "mixed" else model).save_pretrained(OUT / folder)
        # PEFT merges the adapter into the model loaded from disk, in float32.
        loaded = PeftModel.from_pretrained(base(), OUT / folder).float().eval()
        golden[f"logits.{folder}"] = loaded(**case).logits.detach()
        names = list(adapted(loaded))
        merged = loaded.merge_and_unload().state_dict()
        for name in names:
            golden[f"merged.{folder}.{name}.weight"] = merged[f"{name}.weight"].clone()
        (OUT / folder / "README.md").unlink()
    save_file(golden, OUT / "golden.safetensors", metadata={"format": "pt"})


def golden_matching() -> None:
    cases = []
    for options in [
        dict(target_modules=OPT, r=16, lora_alpha=32),
        dict(target_modules=["v"], allow_none=True),
        dict(target_modules=["q", "v", "q_proj", "v_proj"]),
        dict(target_modules=["dense"], r=3),
        dict(target_modules=["fc1"], exclude_modules=["mlp.fc1"]),
        dict(target_modules=["fc1"], exclude_modules=r"vision_model.*"),
        dict(target_modules=["self_attn.q_proj", "language_projection"]),
        dict(target_modules=["qformer.encoder.layer.0.attention.attention.query"]),
        dict(target_modules=r"qformer.*\.(query|value)"),
        dict(target_modules=r"(?i)language_model.*\.(?P<which>[KQ])_proj"),
        dict(target_modules="all-linear", r=2),
        dict(target_modules=["q_proj", "fc1"], layers_to_transform=[1]),
        dict(target_modules=["query", "fc2"], layers_to_transform=0, layers_pattern="layer"),
        dict(target_modules=["q_proj", "k_proj"], rank_pattern={"layers.1.self_attn.q_proj": 5}, alpha_pattern={"k_proj": 7}),
        dict(target_modules=["q_proj", "query"], modules_to_save=["qformer"]),
        dict(target_modules=OPT, use_rslora=True, r=4, lora_alpha=6),
        dict(target_modules="dummy-target-modules", modules_to_save=["qformer", "language_projection"]),
        dict(target_modules=["fc1", "dense"], use_dora=True, r=2),
        dict(target_modules=["fc1", "dense"], lora_bias=True, r=2),
        dict(target_modules=["fc1", "qkv"], bias="lora_only", r=2),
        dict(target_modules=["fc1", "qkv"], bias="all", r=2),
        dict(target_modules=["lm_head"], r=2),
    ]:
        allow_none = options.pop("allow_none", False)
        case: dict = {"config": options}
        try:
            model = get_peft_model(base(), LoraConfig(**options))
            modules = adapted(model)
            case["modules"] = {n: {"r": m.r["default"], "scaling": m.scaling["default"]} for n, m in modules.items()}
            with contextlib.redirect_stdout(io.StringIO()) as line:
                model.print_trainable_parameters()
            case["line"] = line.getvalue().strip()
        except ValueError:
            assert allow_none, options
            case["modules"] = {}
        cases.append(case)
    (OUT / "matching.json").write_text(json.dumps(cases, indent=1, default=str) + "\n")


VARIANTS = {
    "dora": dict(
        r=4, lora_alpha=6, use_dora=True, use_rslora=True, lora_dropout=0.05, target_modules=["q_proj", "fc1", "query"],
        rank_pattern={"query": 2},
    ),
    "lora_bias": dict(r=2, lora_alpha=5, lora_bias=True, target_modules=["v_proj", "dense", "language_projection"]),
    "bias_all": dict(r=2, bias="all", target_modules=["q_proj", "fc2"], init_lora_weights=False),
    "bias_lora_only": dict(
        r=2, bias="lora_only", target_modules=["out_proj", "qkv"], modules_to_save=["language_projection"]
    ),
    "save_embeddings": dict(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    "save_head": dict(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights="gaussian"),
    "save_both": dict(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]),
    "save_norms": dict(r=2, target_modules=["fc2"], modules_to_save=["layernorm", "norm2", "self_attn_layer_norm"]),
    "head_target": dict(r=2, lora_alpha=3, target_modules=["k_proj", "lm_head"]),
    "all_linear": dict(
        r=2, lora_alpha=7, target_modules="all-linear", exclude_modules=["fc1", "language_projection"],
        init_lora_weights="orthogonal",
    ),
    "layers": dict(
        r=2, target_modules=["q_proj", "query"], layers_to_transform=[1], layers_pattern=["layers", "layer"],
        alpha_pattern={"query": 5},
    ),
    "first": dict(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj"]),
    "second": dict(r=2, lora_alpha=5, target_modules=["v_proj", "fc2"]),
}  # fmt: skip


def plain_name(name: str) -> str:
    """A parameter's name without what PEFT's wrappers add."""
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")
    return name.replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector").replace(".default.", ".")


def golden_variants() -> None:
    case = inputs()
    labels = case["input_ids"].clone()
    labels[(labels == IMAGE) | (case["attention_mask"] == 0)] = -100
    golden = {"labels": labels}
    shutil.rmtree(OUT / "variants", ignore_errors=True)
    for name, options in VARIANTS.items():
        adapt(LoraConfig(**options)).save_pretrained(OUT / "variants" / name)
        (OUT / "variants" / name / "README.md").unlink()
        loaded = PeftModel.from_pretrained(base(), OUT / "variants" / name, is_trainable=True).eval()
        output = loaded(**case, labels=labels)
        output.loss.backward()
        golden[f"{name}.logits"] = output.logits.detach()
        golden[f"{name}.loss"] = output.loss.detach()
        for parameter_name, parameter in loaded.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, parameter_name
                golden[f"{name}.grad.{plain_name(parameter_name)}"] = parameter.grad.clone()
    save_file(golden, OUT / "variants.safetensors", metadata={"format": "pt"})


def golden_weighted() -> None:
    case = inputs()
    model = PeftModel.from_pretrained(base(), OUT / "variants/first", adapter_name="first").eval()
    model.load_adapter(OUT / "variants/second", adapter_name="second")
    golden = {}
    with torch.no_grad():
        for name, options in {
            "linear": dict(weights=[0.7, 0.4], combination_type="linear"),
            "linear_negative": dict(weights=[0.7, -0.4], combination_type="linear"),
            "cat": dict(weights=[0.7, -0.4], combination_type="cat"),
            "svd": dict(weights=[0.7, 0.4], combination_type="svd"),
            "svd_rank_1": dict(weights=[0.7, 0.4], combination_type="svd", svd_rank=1),
        }.items():
            model.add_weighted_adapter(["first", "second"], adapter_name=name, **options)
            model.set_adapter(name)
            golden[f"{name}.logits"] = model(**case).logits
        model.base_model.set_adapter(["first", "second"])
        golden["both.logits"] = model(**case).logits
        with model.disable_adapter():
            golden["disabled.logits"] = model(**case).logits
    save_file(golden, OUT / "weighted.safetensors", metadata={"format": "pt"})


def old_files() -> None:
    """The files that PEFT 0.3 made of adapter/."""
    (OUT / "old").mkdir(exist_ok=True)
    torch.save(load_file(OUT / "adapter/adapter_model.safetensors"), OUT / "old/adapter_model.bin")
    made = json.loads((OUT / "adapter/adapter_config.json").read_text())
    kept = ("base_model_name_or_path", "bias", "inference_mode", "lora_alpha", "lora_dropout", "modules_to_save", "peft_type", "r")
    old = {name: made[name] for name in kept} | {"target_modules": OPT, "task_type": None}
    old |= {"enable_lora": None, "fan_in_fan_out": False, "merge_weights": False}
    (OUT / "old/adapter_config.json").write_text(json.dumps(old, indent=2, sort_keys=True))


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(OUT / "base", ignore_errors=True)
    base().save_pretrained(OUT / "base")
    golden_adapters()
    golden_matching()
    golden_variants()
    golden_weighted()
    old_files()
    for file in sorted(OUT.rglob("*")):
        if file.is_file():
            print(f"{file.stat().st_size:8d} {file.relative_to(OUT)}")


if __name__ == "__main__":
    main()
