"""Makes packages/trainer/fixtures/trainer.json: learning rates, an AdamW trajectory and the weight-decay groups.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2
    python tools/parity/make_trainer_fixture.py
"""

import json
import pathlib
from unittest import mock

import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration, Trainer, TrainingArguments, get_scheduler

OUT = pathlib.Path(__file__).parents[2] / "packages" / "trainer" / "fixtures" / "trainer.json"


def schedules():
    cases = [
        ("linear", 100, 0.05, {}),
        ("linear", 37, 0.0, {}),
        ("linear", 7, 0.3, {}),
        ("cosine", 100, 0.1, {}),
        ("cosine", 41, 0.0, {}),
        ("cosine", 60, 0.05, {"min_lr_rate": 0.02}),
        ("constant", 30, 0.0, {}),
        ("constant", 30, 0.1, {}),
        ("constant_with_warmup", 30, 0.0, {}),
        ("constant_with_warmup", 30, 0.1, {}),
    ]
    rows = []
    for kind, total, ratio, extra in cases:
        args = TrainingArguments(output_dir="unused", warmup_steps=ratio, use_cpu=True, report_to=[])
        warmup = args.get_warmup_steps(total)
        name = "cosine_with_min_lr" if extra else kind
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
        scheduler = get_scheduler(name, optimizer, warmup, total, scheduler_specific_kwargs=extra or None)
        rates = []
        for _ in range(total):
            rates.append(scheduler.get_last_lr()[0])  # the rate of this update
            optimizer.step()
            scheduler.step()
        rows.append(
            {
                "lr_scheduler_type": kind,
                "total": total,
                "warmup_ratio": ratio,
                "warmup": warmup,
                "min_lr_ratio": extra.get("min_lr_rate", 0),
                "learning_rate": 2e-3,
                "rates": rates,
            }
        )
    return rows


def adamw(max_grad_norm):
    """30 updates of a two-layer problem; the bias is in the group without weight decay."""
    x = torch.sin(torch.arange(24, dtype=torch.float32)).reshape(6, 4)
    y = torch.cos(torch.arange(18, dtype=torch.float32)).reshape(6, 3)
    weight = torch.nn.Parameter(torch.sin(torch.arange(12, dtype=torch.float32) * 0.7).reshape(3, 4))
    bias = torch.nn.Parameter(torch.cos(torch.arange(3, dtype=torch.float32)))
    groups = [{"params": [weight], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.98), eps=1e-8)
    scheduler = get_scheduler("cosine", optimizer, 3, 30)
    losses, norms = [], []
    for _ in range(30):
        loss = ((x @ weight.T + bias - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([weight, bias], max_grad_norm if max_grad_norm else float("inf"))
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        norms.append(norm.item())
    return {
        "max_grad_norm": max_grad_norm,
        "losses": losses,
        "norms": norms,
        "weight": weight.detach().flatten().tolist(),
        "bias": bias.detach().tolist(),
    }


def decay_groups():
    """Every tensor of a tiny BLIP-2 and whether Trainer decays it."""
    config = Blip2Config(
        vision_config={"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                       "image_size": 16, "patch_size": 8},
        qformer_config={"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                        "encoder_hidden_size": 8, "vocab_size": 20},
        text_config={"model_type": "opt", "hidden_size": 8, "ffn_dim": 16, "num_hidden_layers": 1,
                     "num_attention_heads": 2, "vocab_size": 20, "word_embed_proj_dim": 8,
                     "max_position_embeddings": 16},
        num_query_tokens=2,
    )  # fmt: skip
    model = Blip2ForConditionalGeneration(config)
    decayed = set(Trainer.get_decay_parameter_names(mock.Mock(), model))
    return [[name, list(p.shape), name in decayed] for name, p in model.named_parameters()]


OUT.parent.mkdir(parents=True, exist_ok=True)
fixture = {"schedules": schedules(), "adamw": [adamw(0), adamw(0.5)], "decay": decay_groups()}
OUT.write_text(json.dumps(fixture) + "\n")
print(OUT, OUT.stat().st_size, "bytes")
