"""Makes packages/weights/fixtures/lavis: a small checkpoint as LAVIS saves it, and the tensors it becomes.

    pip install torch==2.13.0
    python tools/parity/make_lavis_fixture.py

trained-t5.pth        what LAVIS saves of the tiny T5 of packages/blip2/fixtures: projection, and copies of the frozen embeddings
trained-instructblip.pth  what LAVIS saves of the tiny InstructBLIP: some tensors of the Q-Former, with its words
trained.pth           the tiny BLIP-2 of packages/peft-lora/fixtures with other values, in LAVIS's names and layout: the model's
                      state dict in a dictionary with optimizer, config and epoch; vision tower in fp16, one tensor not contiguous
expected.safetensors  the imported tensors, under Hugging Face's names
unsafe.pth            a pickle that would run a command
legacy.pth            the format before PyTorch 1.6
"""

import os
import re
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2] / "packages"
OUT = ROOT / "weights/fixtures/lavis"

# Hugging Face → LAVIS, the inverse of the importer, written independently of it.
RENAMES = [
    (r"^vision_model\.embeddings\.class_embedding$", "visual_encoder.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding$", "visual_encoder.pos_embed"),
    (r"^vision_model\.embeddings\.patch_embedding", "visual_encoder.patch_embed.proj"),
    (r"^vision_model\.post_layernorm", "ln_vision"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.layer_norm(\d)", r"visual_encoder.blocks.\1.norm\2"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.self_attn\.qkv", r"visual_encoder.blocks.\1.attn.qkv"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.self_attn\.projection", r"visual_encoder.blocks.\1.attn.proj"),
    (r"^vision_model\.encoder\.layers", "visual_encoder.blocks"),
    (r"^qformer\.layernorm", "Qformer.bert.embeddings.LayerNorm"),
    (r"^qformer\.(.*)attention\.attention\.", r"Qformer.bert.\1attention.self."),
    (r"^qformer\.", "Qformer.bert."),
    (r"^language_projection", "opt_proj"),
]


class Command:
    def __reduce__(self):
        return os.system, ("echo this must never run",)


def frozen(folder, name):
    """LAVIS keeps tied tensors under their second names although they are frozen, in half precision."""
    return load_file(folder / "model.safetensors")[name].bfloat16()


def save_instructed():
    """Each value counts from the number of its tensor."""
    renames = [(r"^qformer\.embeddings\.layernorm", "Qformer.bert.embeddings.LayerNorm"), *RENAMES[:-1], (r"^language_projection", "t5_proj")]
    state = OrderedDict()
    base = load_file(ROOT / "blip2/fixtures/tiny-instructblip/model.safetensors")
    trained = [n for n in sorted(base) if re.match(r"query_tokens|language_projection|qformer\.embeddings|qformer\.encoder\.layer\.0\.(attention|intermediate\.)", n)]
    for i, name in enumerate(trained):
        lavis = name
        for pattern, to in renames:
            lavis = re.sub(pattern, to, lavis)
        state[lavis] = i + torch.arange(base[name].numel()).reshape(base[name].shape) / 1024
    torch.save({"model": state, "epoch": 1}, OUT / "trained-instructblip.pth")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(3)
    state, expected = OrderedDict(), {}
    for name, value in load_file(ROOT / "peft-lora/fixtures/base/model.safetensors").items():
        if name.startswith("language_model"):
            continue  # frozen in LAVIS, so not in its files
        value = torch.randn(value.shape)
        if name.startswith("vision_model.encoder"):
            value = value.half()
        lavis = name
        for pattern, to in RENAMES:
            lavis = re.sub(pattern, to, lavis)
        if name.endswith("qkv.bias"):
            q, k, v = value.chunk(3)
            k.zero_()
            state[lavis.replace("qkv.bias", "q_bias")] = q.clone()
            state[lavis.replace("qkv.bias", "v_bias")] = v.clone()
        elif name == "language_projection.weight":
            state[lavis] = value.t().contiguous().t()  # column-major
        else:
            state[lavis] = value
        expected[name] = value.float().contiguous()
    state["Qformer.bert.embeddings.position_ids"] = torch.arange(8)[None]
    state["opt_model.lm_head.weight"] = frozen(ROOT / "peft-lora/fixtures/base", "language_model.model.decoder.embed_tokens.weight")
    optimizer = {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-5, "betas": (0.9, 0.98)}]}
    saved = {"model": state, "optimizer": optimizer, "config": {"run": {"seed": 42, "amp": True, "note": None}}, "scaler": None, "epoch": 4}
    torch.save(saved, OUT / "trained.pth")
    save_file(expected, OUT / "expected.safetensors", metadata={"format": "pt"})
    embeddings = frozen(ROOT / "blip2/fixtures/tiny-t5", "language_model.shared.weight")
    copies = {f"t5_model.{stack}.embed_tokens.weight": embeddings for stack in ("encoder", "decoder")}
    projection = {"t5_proj.weight": torch.randn(24, 16), "t5_proj.bias": torch.randn(24)}
    torch.save({"model": OrderedDict(copies | projection), "epoch": 2}, OUT / "trained-t5.pth")
    save_instructed()
    torch.save({"model": {"a": torch.ones(2)}, "config": Command()}, OUT / "unsafe.pth")
    torch.save({"model": {"a": torch.ones(2)}}, OUT / "legacy.pth", _use_new_zipfile_serialization=False)
    for file in sorted(OUT.iterdir()):
        print(f"{file.stat().st_size:8d} {file.name}")


if __name__ == "__main__":
    main()
