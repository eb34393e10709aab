"""Makes packages/retrieval/fixtures/losses.safetensors: the losses of BLIP-2's first stage and their gradients, by LAVIS's own code.

    pip download --no-deps salesforce-lavis==1.0.2
    pip install torch==2.13.0 transformers==4.30.2 safetensors
    python tools/parity/make_lavis_losses_fixture.py salesforce_lavis-1.0.2-py3-none-any.whl

The Q-Former is LAVIS's class with the weights of fixtures/tiny; the forward function is the one in blip2_qformer.py, called with image
tokens instead of pictures and with token rows instead of texts. Negatives are the hardest ones instead of drawn ones.
"""

import ast
import importlib.util
import json
import sys
import tempfile
import types
import zipfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig

FIXTURES = Path(__file__).resolve().parents[2] / "packages" / "retrieval" / "fixtures"


def lavis(wheel):
    """The Q-Former's module, and the forward function of Blip2Qformer."""
    folder = Path(tempfile.mkdtemp())
    with zipfile.ZipFile(wheel) as archive:
        for name in ("Qformer.py", "blip2_qformer.py"):
            (folder / name).write_bytes(archive.read(f"lavis/models/blip2_models/{name}"))
    spec = importlib.util.spec_from_file_location("Qformer", folder / "Qformer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tree = ast.parse((folder / "blip2_qformer.py").read_text())
    model = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Blip2Qformer")
    forward = next(node for node in model.body if isinstance(node, ast.FunctionDef) and node.name == "forward")
    scope = {
        "torch": torch, "F": F, "dist": types.SimpleNamespace(get_rank=lambda: 0), "concat_all_gather": lambda x: x,
        "all_gather_with_grad": lambda x: x, "BlipOutput": types.SimpleNamespace,
    }  # fmt: skip
    exec(compile(ast.Module(body=[forward], type_ignores=[]), "blip2_qformer.py", "exec"), scope)
    return module, scope["forward"]


class Rows(dict):
    def __init__(self, ids, mask):
        super().__init__(input_ids=ids, attention_mask=mask)
        self.input_ids, self.attention_mask = ids, mask

    def to(self, _):
        return self


def main():
    torch.set_num_threads(1)
    module, forward = lavis(sys.argv[1])
    config = json.loads((FIXTURES / "tiny" / "config.json").read_text())
    q = config["qformer_config"]
    bert = BertConfig(
        hidden_size=q["hidden_size"], num_hidden_layers=q["num_hidden_layers"], num_attention_heads=q["num_attention_heads"],
        intermediate_size=q["intermediate_size"], vocab_size=q["vocab_size"], max_position_embeddings=q["max_position_embeddings"],
        layer_norm_eps=q["layer_norm_eps"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    bert.encoder_width, bert.add_cross_attention = q["encoder_hidden_size"], True
    bert.cross_attention_freq, bert.query_length = q["cross_attention_frequency"], config["num_query_tokens"]
    qformer = module.BertLMHeadModel(bert).eval()
    draw = torch.Generator().manual_seed(21)

    weights = load_file(FIXTURES / "tiny" / "model.safetensors")
    renamed = {"embeddings.word_embeddings.weight": "bert.embeddings.word_embeddings.weight",
               "embeddings.position_embeddings.weight": "bert.embeddings.position_embeddings.weight",
               "qformer.layernorm.weight": "bert.embeddings.LayerNorm.weight",
               "qformer.layernorm.bias": "bert.embeddings.LayerNorm.bias"}  # fmt: skip
    state = {renamed.get(n, n.replace("qformer.", "bert.").replace(".attention.attention.", ".attention.self.")
                         .replace(".crossattention.attention.", ".crossattention.self.")): t
             for n, t in weights.items() if n.startswith(("qformer.", "embeddings."))}  # fmt: skip
    missing, unexpected = qformer.load_state_dict(state, strict=False)
    head = {n: p for n, p in qformer.named_parameters() if n.startswith("cls.")}
    assert not unexpected, unexpected
    assert all(n.startswith("cls.") or n.endswith("position_ids") for n in missing), missing
    with torch.no_grad():
        for name, p in head.items():
            if name != "cls.predictions.decoder.weight":
                p.copy_(torch.randn(p.shape, generator=draw) * 0.3 + (1.0 if name.endswith("LayerNorm.weight") else 0.0))
        qformer.cls.predictions.decoder.weight = qformer.bert.embeddings.word_embeddings.weight

    def linear(name):
        layer = nn.Linear(*reversed(weights[f"{name}.weight"].shape))
        layer.load_state_dict({"weight": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]})
        return layer

    golden = json.loads((FIXTURES / "golden.json").read_text())
    B = 3
    rows = Rows(torch.tensor(golden["input_ids"][:B]), torch.tensor(golden["attention_mask"][:B]))
    tokenizer = lambda *_, **__: rows  # noqa: E731
    tokenizer.bos_token_id, tokenizer.pad_token_id = 5, 0
    tokens = torch.randn(B, 17, q["encoder_hidden_size"], generator=draw).requires_grad_()
    model = types.SimpleNamespace(
        visual_encoder=lambda x: x, ln_vision=lambda x: x, Qformer=qformer, tokenizer=tokenizer, max_txt_len=32,
        query_tokens=nn.Parameter(weights["query_tokens"]), temp=nn.Parameter(torch.tensor(0.07)),
        vision_proj=linear("vision_projection"), text_proj=linear("text_projection"), itm_head=linear("itm_head"),
    )  # fmt: skip
    negatives = []
    torch.multinomial = lambda w, _: negatives.append(int(w.argmax())) or w.argmax()
    out = forward(model, {"image": tokens, "text_input": [""] * B})

    parameters = {
        "query_tokens": model.query_tokens, "temperature": model.temp, "tokens": tokens,
        "itm_head.weight": model.itm_head.weight, "vision_projection.weight": model.vision_proj.weight,
        "text_projection.weight": model.text_proj.weight,
        "embeddings.word_embeddings.weight": qformer.bert.embeddings.word_embeddings.weight,
        "qformer.encoder.layer.0.attention.attention.key.weight": qformer.bert.encoder.layer[0].attention.self.key.weight,
        "qformer.encoder.layer.1.intermediate.dense.weight": qformer.bert.encoder.layer[1].intermediate.dense.weight,
        "qformer.encoder.layer.2.crossattention.attention.value.weight":
            qformer.bert.encoder.layer[2].crossattention.self.value.weight,
    }  # fmt: skip
    result = {"tokens": tokens.detach(), "temperature": model.temp.detach(),
              "image_of_text": torch.tensor(negatives[:B]), "text_of_image": torch.tensor(negatives[B:])}  # fmt: skip
    for name, p in head.items():
        if "decoder" not in name:
            result[name.replace("cls.predictions.", "head.")] = p.detach()
    for name, loss in (("contrastive", out.loss_itc), ("matching", out.loss_itm), ("generation", out.loss_lm)):
        result[name] = loss.detach().reshape(1)
        grads = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
        for key, grad in zip(parameters, grads):
            if grad is not None:
                result[f"grads.{name}.{key}"] = grad
    result = {n: t.to(torch.int32 if not t.is_floating_point() else torch.float32).contiguous() for n, t in result.items()}
    save_file({n: t.clone() for n, t in result.items()}, FIXTURES / "losses.safetensors", metadata={"config": "{}"})
    print({n: float(result[n]) for n in ("contrastive", "matching", "generation")}, negatives)


if __name__ == "__main__":
    main()
