"""Training steps of BLIP-2 with transformers + PEFT on the batches of a work file: the other side of `blip2-bench step`.

Prints one JSON line. Frozen parts run in evaluation mode and outside autograd, as on our side; LoRA's matrices are float32
(PEFT's default), a Q-Former that trains has the model's dtype, which is the fastest choice. Optimizer: AdamW, fused.
"""

import time

BEGAN = time.perf_counter()

import torch  # noqa: E402
from baseline import Work, arguments, load_model, loaded, report, settle, synchronised  # noqa: E402

TARGETS = {"opt": ["q_proj", "k_proj", "v_proj", "out_proj"], "t5": ["q", "v"]}
# What the preset lora+qformer trains whole, beside the adapters.
BRIDGE = ["qformer", "query_tokens", "language_projection"]


def with_preset(model, a):
    """The model with exactly the preset's tensors trainable."""
    if a.preset == "qformer":
        for name, p in model.named_parameters():
            p.requires_grad_("qformer" in name)
        return model
    from peft import LoraConfig, PeftModel, get_peft_model

    if a.adapter:
        return PeftModel.from_pretrained(model, a.adapter, is_trainable=True)
    layers = model.config.text_config.num_hidden_layers
    upper = list(range(layers - a.upper, layers)) if a.upper else None
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=TARGETS[model.config.text_config.model_type], layers_to_transform=upper)
    model = get_peft_model(model, lora)
    if a.preset == "lora+qformer":
        for name, p in model.named_parameters():
            if any(part in name for part in BRIDGE):
                p.requires_grad_(True)
    return model


def set_modes(model, base, a):
    """Dropout only where something trains; for the check nowhere."""
    model.eval()
    if not a.no_dropout:
        if a.preset != "lora":
            base.qformer.train()
        if a.preset != "qformer":
            base.language_model.train()


def make_optimizer(model, a):
    """Trainer's groups: no weight decay on vectors."""
    params = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in params if p.dim() > 1], "weight_decay": 0.01},
        {"params": [p for p in params if p.dim() == 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return params, torch.optim.AdamW(groups, lr=a.lr, betas=(0.9, 0.999), eps=1e-8, fused=True)


@torch.no_grad()
def frozen_features(base, pixels, preset):
    """What a cache of the frozen parts would hold."""
    if preset != "lora":
        return base.vision_model(pixel_values=pixels).last_hidden_state
    return base.get_image_features(pixels).pooler_output


def from_features(base, features, preset):
    """Features in the shape in which forward takes them."""
    from transformers.models.blip_2.modeling_blip_2 import BaseModelOutputWithVisionQformerOutputs

    if preset != "lora":
        queries = base.query_tokens.expand(features.shape[0], -1, -1)
        mask = torch.ones(features.shape[:-1], dtype=torch.long, device=features.device)
        hidden = base.qformer(query_embeds=queries, encoder_hidden_states=features, encoder_attention_mask=mask)
        features = base.language_projection(hidden.last_hidden_state)
    return {"image": BaseModelOutputWithVisionQformerOutputs(pooler_output=features)}


class Course:
    """The model on its way through the work."""

    def __init__(self, a):
        self.a = a
        self.base = load_model(a, trains=a.preset)
        self.pixel_dtype = torch.float32 if a.precision == "int8" else self.base.dtype
        self.model = with_preset(self.base, a)
        set_modes(self.model, self.base, a)
        self.params, self.optimizer = make_optimizer(self.model, a)
        self.work = Work(a.work, a.model, a.device)
        self.features = {}

    def fill_features(self):
        for i in range(len(self.work)):
            pixels = self.work.pixels(i).to(self.pixel_dtype)
            self.features[i] = frozen_features(self.base, pixels, self.a.preset)

    def step(self, i):
        if self.a.features == "ready":
            images = {"pixel_values": None, "mm_encoder_outputs": from_features(self.base, self.features[i], self.a.preset)}
        else:
            images = {"pixel_values": self.work.pixels(i).to(self.pixel_dtype)}
        loss = self.model(**images, **self.work.tokens(i)).loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        return loss.item()


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=["lora", "qformer", "lora+qformer"], default="lora")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--features", choices=["none", "ready"], default="none")
    parser.add_argument("--adapter", help="a PEFT adapter to begin with")
    parser.add_argument("--no-dropout", action="store_true")
    parser.add_argument("--upper", type=int, default=0, help="LoRA in so many upper layers alone")
    a = parser.parse_args()
    settle(a)
    course = Course(a)
    at_start = loaded(BEGAN)
    ready = time.perf_counter()
    if a.features == "ready":
        course.fill_features()
    features_seconds = synchronised(a) - ready
    seconds, losses = [], []
    for step in range(a.steps):
        start = time.perf_counter()
        losses.append(course.step(step % len(course.work)))
        seconds.append(synchronised(a) - start)
    report(
        a,
        BEGAN,
        preset=a.preset,
        features=a.features,
        **at_start,
        features_seconds=features_seconds,
        seconds=seconds,
        losses=losses,
        images=[course.work.batches[i % len(course.work)]["shape"][0] for i in range(a.steps)],
        trainable=sum(p.numel() for p in course.params),
    )


if __name__ == "__main__":
    main()
