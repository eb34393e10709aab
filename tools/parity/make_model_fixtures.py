"""Golden cases of the sub-models, made by transformers on tiny random weights.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2
    python tools/parity/make_model_fixtures.py

writes packages/{vision-encoder,qformer,opt-decoder,t5-language-model}/fixtures/*.safetensors. A file holds `weights.*` (checkpoint names),
inputs, every hidden state, the output and `grads.*` of loss = sum(output * loss_weight), all float32 but for int32 ids and
masks; its metadata holds `config` (JSON). Weights are larger than a fresh model's and the eps of the LayerNorms (of OPT,
whose eps is fixed: the embeddings) is chosen so that a wrong eps, GELU, mask or position changes results far more than float32 noise.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    Blip2QFormerConfig,
    Blip2QFormerModel,
    Blip2VisionConfig,
    Blip2VisionModel,
    OPTConfig,
    OPTForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.t5.modeling_t5 import T5Attention

PACKAGES = Path(__file__).resolve().parents[2] / "packages"


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(generator, *shape):
    return torch.randn(shape, generator=generator)


@torch.no_grad()
def fill(model, generator, small=()):
    """Matrices and biases N(0, 0.2), norm weights N(1, 0.2), parameters named in `small` N(0, 0.02)."""
    for name, p in sorted(model.named_parameters()):
        std = 0.02 if any(s in name for s in small) else 0.2
        mean = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
        p.copy_(normal(generator, *p.shape) * std + mean)


def gradients(model, loss, extra=None):
    named = {**{n: p for n, p in model.named_parameters()}, **(extra or {})}
    grads = torch.autograd.grad(loss, list(named.values()), retain_graph=True)
    return dict(zip(named, grads))


def write(package, name, model, config, tensors):
    out = {f"weights.{n}": p for n, p in model.named_parameters()} | tensors
    out = {n: t.detach().to(torch.int32 if not t.is_floating_point() else torch.float32).clone() for n, t in out.items()}
    folder = PACKAGES / package / "fixtures"
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.safetensors"
    save_file({n: out[n].contiguous() for n in sorted(out)}, file, metadata={"config": json.dumps(config)})
    print(f"{package}/fixtures/{file.name}: {len(out)} tensors, {file.stat().st_size} bytes")


def vision(name, seed, **changes):
    config = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=12,
                  patch_size=4, layer_norm_eps=0.03, attention_dropout=0.1, qkv_bias=True) | changes
    g = seeded(seed)
    model = Blip2VisionModel._from_config(Blip2VisionConfig(**config), attn_implementation="eager").eval()
    fill(model, g)
    pixels = normal(g, 2, 3, 12, 12).requires_grad_()
    out = model(pixels, output_hidden_states=True)
    w = normal(g, *out.last_hidden_state.shape)
    grads = gradients(model, (out.last_hidden_state * w).sum())
    states = {f"hidden_states.{i}": h for i, h in enumerate(out.hidden_states)}
    write("vision-encoder", name, model, config,
          {"pixel_values": pixels, "last_hidden_state": out.last_hidden_state, "loss_weight": w}
          | states | {f"grads.{n}": t for n, t in grads.items()})


def qformer(name, seed, **changes):
    config = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, encoder_hidden_size=12,
                  layer_norm_eps=0.03, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1) | changes
    g = seeded(seed)
    model = Blip2QFormerModel._from_config(Blip2QFormerConfig(**config), attn_implementation="eager").eval()
    fill(model, g)
    queries = normal(g, 1, 5, 16).requires_grad_()
    image = normal(g, 2, 7, 12).requires_grad_()
    out = model(query_embeds=queries.expand(2, -1, -1), encoder_hidden_states=image, output_hidden_states=True, output_attentions=True)
    w = normal(g, *out.last_hidden_state.shape)
    grads = gradients(model, (out.last_hidden_state * w).sum(), {"query_tokens": queries, "image_features": image})
    states = {f"hidden_states.{i}": h for i, h in enumerate(out.hidden_states)}
    states |= {f"cross_attentions.{i}": a for i, a in enumerate(out.cross_attentions)}
    write("qformer", name, model, config,
          {"query_tokens": queries, "image_features": image, "last_hidden_state": out.last_hidden_state, "loss_weight": w}
          | states | {f"grads.{n}": t for n, t in grads.items()})


def qformer_texts(name, seed):
    """Texts alone (two lengths, padded on the right), and beside queries of an image."""
    config = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, encoder_hidden_size=12,
                  layer_norm_eps=0.03, cross_attention_frequency=2, use_qformer_text_input=True, vocab_size=40)
    g = seeded(seed)
    model = Blip2QFormerModel._from_config(Blip2QFormerConfig(**config), attn_implementation="eager").eval()
    fill(model, g)
    queries = normal(g, 1, 5, 16).requires_grad_()
    image = normal(g, 2, 7, 12).requires_grad_()
    embeds = normal(g, 2, 6, 16).requires_grad_()
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    alone = model(query_embeds=embeds, query_length=0, attention_mask=mask).last_hidden_state
    rows = torch.cat([queries.expand(2, -1, -1), embeds], dim=1)
    both = model(query_embeds=rows, query_length=5, attention_mask=torch.cat([torch.ones(2, 5, dtype=torch.long), mask], 1),
                 encoder_hidden_states=image).last_hidden_state
    w_alone, w_both = normal(g, *alone.shape) * mask[..., None], normal(g, *both.shape)
    w_both[:, 5:] *= mask[..., None]  # nobody reads the padding
    grads = gradients(model, (alone * w_alone).sum() + (both * w_both).sum(),
                      {"query_tokens": queries, "image_features": image, "embeds": embeds})
    write("qformer", name, model, config,
          {"query_tokens": queries, "image_features": image, "embeds": embeds, "mask": mask, "alone": alone, "both": both,
           "weight_alone": w_alone, "weight_both": w_both} | {f"grads.{n}": t for n, t in grads.items()})


def opt(name, seed, **changes):
    """The same rows padded on the right and on the left: prefixes `right.` and `left.`; padding has no loss weight."""
    config = dict(vocab_size=33, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=24,
                  max_position_embeddings=12, dropout=0.1, attention_dropout=0.1) | changes
    g = seeded(seed)
    model = OPTForCausalLM._from_config(OPTConfig(**config), attn_implementation="eager").eval()
    fill(model, g, small=("embed_tokens", "embed_positions"))
    rows = [torch.randint(3, 33, (n,), generator=g) for n in (7, 4)]
    tensors = {}
    for side in ("right", "left"):
        ids = torch.ones(2, 7, dtype=torch.long)
        mask = torch.zeros(2, 7, dtype=torch.long)
        for b, row in enumerate(rows):
            at = slice(0, len(row)) if side == "right" else slice(7 - len(row), 7)
            ids[b, at], mask[b, at] = row, 1
        out = model(ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        w = normal(g, *out.logits.shape) * mask[..., None]
        grads = gradients(model, (out.logits * w).sum())
        states = {f"hidden_states.{i}": h for i, h in enumerate(out.hidden_states)}
        case = {"input_ids": ids, "attention_mask": mask, "logits": out.logits, "loss_weight": w} | states
        tensors |= {f"{side}.{n}": t for n, t in case.items()}
        tensors |= {f"{side}.grads.{n}": t for n, t in grads.items()}
    write("opt-decoder", name, model, config, tensors)


def buckets():
    """Buckets of the distances -300 ... 300 of both kinds, for several sizes: `buckets.KIND.NUMBER.MOST_DISTANCE`."""
    out = {}
    for number, most in ((32, 128), (8, 6), (8, 20), (16, 100), (64, 256), (32, 17)):
        for both in (True, False):
            kind = "both" if both else "earlier"
            out[f"buckets.{kind}.{number}.{most}"] = T5Attention._relative_position_bucket(torch.arange(-300, 301), both, number, most)
    return out


def t5(name, seed, tensors=None, head=False, **changes):
    """Rows of the encoder padded on the right, on the left and inside, prefixes `right.`, `left.` and `inside.`; one set of targets."""
    config = dict(vocab_size=33, d_model=16, d_kv=4, num_heads=3, d_ff=24, num_layers=2, num_decoder_layers=3, dropout_rate=0.1,
                  relative_attention_num_buckets=8, relative_attention_max_distance=6, layer_norm_epsilon=0.03,
                  decoder_start_token_id=0, pad_token_id=0, eos_token_id=1) | changes
    g = seeded(seed)
    model = T5ForConditionalGeneration._from_config(T5Config(**config), attn_implementation="eager").eval()
    if head:  # transformers 5 ties the head, unless a checkpoint has another one
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    fill(model, g)
    rows = [torch.randint(3, 33, (n,), generator=g) for n in (7, 4)]
    labels = torch.randint(3, 33, (2, 6), generator=g)
    labels[0, 5], labels[1, 3], labels[1, 4:], labels[0, 1] = 1, 1, -100, -100
    tensors = {"labels": labels} | (tensors or {})
    for side in ("right", "left", "inside"):
        ids, mask = torch.zeros(2, 7, dtype=torch.long), torch.zeros(2, 7, dtype=torch.long)
        for b, row in enumerate(rows):
            free = 7 - len(row)
            at = {"right": range(len(row)), "left": range(free, 7), "inside": [0, 1, *range(2 + free, 7)]}[side]
            ids[b, list(at)], mask[b, list(at)] = row, 1
        out = model(ids, attention_mask=mask, labels=labels, output_hidden_states=True, use_cache=False)
        w = normal(g, *out.logits.shape)
        grads = gradients(model, (out.logits * w).sum())
        states = {f"encoder.hidden_states.{i}": h for i, h in enumerate(out.encoder_hidden_states)}
        states |= {f"decoder.hidden_states.{i}": h for i, h in enumerate(out.decoder_hidden_states)}
        case = {"input_ids": ids, "attention_mask": mask, "logits": out.logits, "loss": out.loss, "loss_weight": w} | states
        tensors |= {f"{side}.{n}": t for n, t in case.items()}
        if side == "right":
            tensors |= {f"{side}.grads.{n}": t for n, t in grads.items()}
    write("t5-language-model", name, model, config, tensors)


if __name__ == "__main__":
    torch.set_num_threads(1)
    vision("vision", 1)
    vision("vision-no-qkv-bias", 2, qkv_bias=False, num_hidden_layers=1, num_attention_heads=4)
    qformer("qformer-every-layer", 3, cross_attention_frequency=1, num_hidden_layers=2)
    qformer("qformer-every-second-layer", 4, cross_attention_frequency=2)
    qformer_texts("qformer-texts", 9)
    opt("opt-pre-norm", 5)
    opt("opt-post-norm", 6, do_layer_norm_before=False, word_embed_proj_dim=8)
    opt("opt-bare", 7, _remove_final_layer_norm=True, enable_bias=False, activation_function="gelu",
        tie_word_embeddings=False)
    t5("t5-gated", 8, head=True, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    t5("t5-blip2", 9, head=True, feed_forward_proj="gated-gelu", dense_act_fn="gelu", tie_word_embeddings=False, num_heads=4)
    t5("t5-tied", 10, buckets(), feed_forward_proj="relu", num_decoder_layers=None)
