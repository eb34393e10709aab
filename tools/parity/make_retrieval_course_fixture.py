"""Makes packages/trainer/fixtures/retrieval/: 30 updates of a model for retrieval by the losses of BLIP-2's first stage.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 safetensors
    python tools/parity/make_retrieval_course_fixture.py

course.safetensors        pairs, the head that predicts words, and of each course losses, gradient norms, negatives and final weights
adapter/                  the adapter that the course `lora` starts from
The model is transformers' Blip2ForImageTextRetrieval (packages/retrieval/fixtures/tiny) in float64 without dropout; its methods compute
similarities and matches. The losses are those of LAVIS (models/blip2_models/blip2_qformer.py), of which make_lavis_losses_fixture.py
compares values and gradients with LAVIS's own code. Negatives are the hardest ones instead of drawn ones. Pairs 0 and 1 are of one
picture and share their targets as in LAVIS's fine-tuning on COCO, which gives the same loss as without that.
"""

import copy
import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers import Blip2ForImageTextRetrieval

ROOT = Path(__file__).resolve().parents[2] / "packages"
TINY, OUT = ROOT / "retrieval" / "fixtures" / "tiny", ROOT / "trainer" / "fixtures" / "retrieval"
STEPS, PAIRS, BATCH, START, SMOOTHING = 30, 6, 4, 5, 0.1
PICTURES = [0, 0, 1, 2, 3, 4]
OPTIMIZER = {"learning_rate": 1e-3, "adam_beta1": 0.9, "adam_beta2": 0.98, "adam_epsilon": 1e-8, "weight_decay": 0.05, "max_grad_norm": 1.0}


def batch_of(step):
    return [(step * 3 + i) % PAIRS for i in range(BATCH)]


class Stage(nn.Module):
    """The model, and what the first stage trains beside it."""

    def __init__(self, model, head):
        super().__init__()
        self.model = model
        self.temperature = nn.Parameter(torch.tensor(0.07, dtype=torch.float64))
        self.head = nn.ParameterDict({n.replace(".", "/"): nn.Parameter(t.double()) for n, t in head.items()})

    def inner(self):
        return self.model.base_model.model if hasattr(self.model, "base_model") and hasattr(self.model, "peft_config") else self.model

    def losses(self, tokens, ids, mask, same):
        m = self.inner()
        n, q = len(ids), m.query_tokens.shape[1]
        ones = torch.ones(n, tokens.shape[1], dtype=torch.long)
        queries = m.query_tokens.expand(n, -1, -1)
        images = m.qformer(query_embeds=queries, encoder_hidden_states=tokens, encoder_attention_mask=ones).last_hidden_state
        images = F.normalize(m.vision_projection(images), dim=-1)
        texts = m.qformer(query_embeds=m.embeddings(input_ids=ids), query_length=0, attention_mask=mask).last_hidden_state
        texts = F.normalize(m.text_projection(texts[:, 0]), dim=-1)
        i2t = torch.einsum("bqp,tp->btq", images, texts).max(-1)[0] / self.temperature
        t2i = torch.einsum("tp,bqp->tbq", texts, images).max(-1)[0] / self.temperature
        targets = (1 - SMOOTHING) * same / same.sum(1, keepdim=True) + SMOOTHING / n
        contrastive = sum(-(F.log_softmax(x, 1) * targets).sum(1).mean() for x in (i2t, t2i)) / 2

        with torch.no_grad():
            image_of_text = t2i.masked_fill(same > 0, -torch.inf).argmax(1)
            text_of_image = i2t.masked_fill(same > 0, -torch.inf).argmax(1)
        own = torch.arange(n)
        pictures, words = torch.cat([own, image_of_text, own]), torch.cat([own, own, text_of_image])
        rows = m.embeddings(input_ids=ids[words], query_embeds=m.query_tokens.expand(3 * n, -1, -1))
        seen = torch.cat([torch.ones(3 * n, q, dtype=torch.long), mask[words]], 1)
        states = m.qformer(query_embeds=rows, query_length=q, attention_mask=seen, encoder_hidden_states=tokens[pictures],
                           encoder_attention_mask=ones.repeat(3, 1)).last_hidden_state  # fmt: skip
        matching = F.cross_entropy(m.itm_head(states[:, :q]).mean(1), torch.tensor([1] * n + [0] * 2 * n))

        begun = ids.clone()
        begun[:, 0] = START
        rows = m.embeddings(input_ids=begun, query_embeds=queries)
        t = ids.shape[1]
        may = torch.ones(q + t, q + t).tril() > 0  # words see the queries and the words before them
        may[:q, :q], may[:q, q:] = True, False
        may = may[None, None] & (torch.cat([torch.ones(n, q, dtype=torch.long), mask], 1) > 0)[:, None, None]
        causal = torch.zeros(may.shape, dtype=torch.float64).masked_fill(~may, torch.finfo(torch.float64).min)
        states = m.qformer(query_embeds=rows, query_length=q, attention_mask=causal, encoder_hidden_states=tokens,
                           encoder_attention_mask=ones).last_hidden_state[:, q:]  # fmt: skip
        h = self.head
        states = F.gelu(F.linear(states, h["transform/dense/weight"], h["transform/dense/bias"]))
        states = F.layer_norm(states, states.shape[-1:], h["transform/LayerNorm/weight"], h["transform/LayerNorm/bias"], 1e-12)
        scores = F.linear(states, m.embeddings.word_embeddings.weight, h["bias"])
        labels = begun.masked_fill(mask == 0, -100)
        generation = F.cross_entropy(scores[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), label_smoothing=SMOOTHING)
        return contrastive + matching + generation, image_of_text, text_of_image


def course(stage, trains, data):
    named = [(n, p) for n, p in stage.named_parameters() if trains(n) or n.startswith(("temperature", "head"))]
    for p in stage.parameters():
        p.requires_grad_(False)
    for _, p in named:
        p.requires_grad_(True)
    o = OPTIMIZER
    groups = [{"params": [p for _, p in named if p.dim() > 1], "weight_decay": o["weight_decay"]},
              {"params": [p for _, p in named if p.dim() <= 1], "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=o["learning_rate"], betas=(o["adam_beta1"], o["adam_beta2"]), eps=o["adam_epsilon"])
    out = {"losses": [], "norms": [], "image_of_text": [], "text_of_image": []}
    for step in range(STEPS):
        at = batch_of(step)
        same = torch.tensor([[float(PICTURES[a] == PICTURES[b]) for b in at] for a in at], dtype=torch.float64)
        value, *negatives = stage.losses(*(x[at] for x in data), same)
        optimizer.zero_grad()
        value.backward()
        out["norms"].append(float(nn.utils.clip_grad_norm_([p for _, p in named], o["max_grad_norm"])))
        optimizer.step()
        out["losses"].append(float(value.detach()))
        out["image_of_text"].append(negatives[0])
        out["text_of_image"].append(negatives[1])
    result = {n: torch.tensor(out[n]) for n in ("losses", "norms")} | {n: torch.stack(out[n]) for n in ("image_of_text", "text_of_image")}
    final = {f"final.{n}": p.detach() for n, p in named}
    print(len(named), "tensors;", [round(x, 4) for x in out["losses"][::7]], "temperature", float(stage.temperature.detach()))
    return result | final


def main():
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    draw = torch.Generator().manual_seed(31)
    golden = json.loads((TINY.parent / "golden.json").read_text())
    base = Blip2ForImageTextRetrieval.from_pretrained(TINY, attn_implementation="eager", dtype=torch.float64).eval()
    width, vocabulary = base.config.qformer_config.hidden_size, base.config.qformer_config.vocab_size
    rows = len(golden["input_ids"][0])
    ids, mask = torch.zeros(PAIRS, rows, dtype=torch.long), torch.zeros(PAIRS, rows, dtype=torch.long)
    for i in range(PAIRS):  # other words and lengths for each
        words = torch.randint(6, vocabulary, (3 + 2 * i % (rows - 4),), generator=draw)
        row = torch.cat([torch.tensor([2]), words, torch.tensor([3])])
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    pictures = torch.randn(len(set(PICTURES)), 17, 24, generator=draw)
    tokens = pictures[PICTURES]
    head = {"transform.dense.weight": torch.randn(width, width, generator=draw) * 0.3, "transform.dense.bias": torch.randn(width, generator=draw) * 0.1,
            "transform.LayerNorm.weight": 1 + torch.randn(width, generator=draw) * 0.1, "transform.LayerNorm.bias": torch.randn(width, generator=draw) * 0.1,
            "bias": torch.randn(vocabulary, generator=draw) * 0.1}  # fmt: skip
    data = (tokens.double(), ids, mask)
    result = {"tokens": tokens, "input_ids": ids, "attention_mask": mask, "pictures": torch.tensor(PICTURES)}
    result |= {f"head.{n}": t for n, t in head.items()}

    whole = Stage(copy.deepcopy(base), head)
    done = course(whole, lambda n: n.startswith("model.") and not n.startswith("model.vision_model."), data)
    result |= {f"qformer-projection.{n.replace('final.model.', 'final.')}": t for n, t in done.items()}

    torch.manual_seed(32)
    adapted = get_peft_model(copy.deepcopy(base), LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["query", "value"]))
    with torch.no_grad():
        for n, p in adapted.named_parameters():
            if "lora_B" in n:
                p.copy_(torch.randn(p.shape, generator=draw) * 0.1)
    adapted.float().save_pretrained(OUT / "adapter")
    (OUT / "adapter" / "README.md").unlink()
    file = OUT / "adapter" / "adapter_config.json"
    config = json.loads(file.read_text())
    config["base_model_name_or_path"] = "../../../../retrieval/fixtures/tiny"
    file.write_text(json.dumps(config, indent=2) + "\n")
    done = course(Stage(adapted.double(), head), lambda n: "lora_" in n, data)
    result |= {f"lora.{n.replace('final.model.base_model.model.', 'final.').replace('.default.', '.')}": t for n, t in done.items()}

    plain = {n.replace("/", "."): t.to(torch.float32 if t.is_floating_point() else torch.int32).contiguous().clone() for n, t in result.items()}
    save_file(plain, OUT / "course.safetensors", metadata={"optimizer": json.dumps(OPTIMIZER), "start": str(START)})


if __name__ == "__main__":
    main()
