"""What the two sides of the comparison share on Python's side: loading, work files, the JSON line."""

import argparse
import json
import resource
import sys
import time
import warnings
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from transformers import Blip2ForConditionalGeneration


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="safetensors file of the TypeScript side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["bfloat16", "float32", "int8"], default="bfloat16")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    return parser


def settle(a):
    """Settings that cost nothing and can only help."""
    torch.set_num_threads(a.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def load_model(a, trains=None):
    """In int8, linear layers through which no gradient passes are torch.ao's dynamic ones (W8A8): all of them, or, given the preset
    that trains, those of the parts before it. The others keep bfloat16 weights then."""
    dtype = getattr(torch, "bfloat16" if a.precision == "int8" else a.precision)
    model = Blip2ForConditionalGeneration.from_pretrained(a.model, dtype=dtype, attn_implementation=a.attention).eval()
    if a.precision == "int8":
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.backends.quantized.engine = "x86"
        if trains is None:
            quantise(model)
            model.float()
        else:
            quantise(model.vision_model)
            model.vision_model.float()
        if trains == "lora":
            quantise(model.qformer)
            model.qformer.float()
            model.language_projection = rounded(model.language_projection)
        elif trains:
            model.vision_model.register_forward_hook(lambda _module, _inputs, out: as_dtype(out, dtype))
    return model.to(a.device)


def quantise(module):
    """What quantize_dynamic(module, {Linear}, dtype=qint8) does, layer by layer: the float32 weights of a whole model need 15 GB."""
    for name, child in module.named_children():
        if isinstance(child, torch.nn.Linear):
            setattr(module, name, rounded(child))
        else:
            quantise(child)


def rounded(linear):
    linear.float().qconfig = torch.ao.quantization.default_dynamic_qconfig
    return torch.ao.nn.quantized.dynamic.Linear.from_float(linear)


def as_dtype(out, dtype):
    for name, value in list(out.items()):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            out[name] = value.to(dtype)
    return out


def synchronised(a):
    """The time when everything that was called has been computed."""
    if a.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Work:
    """Batches of token rows with their pixels or the paths of their pictures."""

    def __init__(self, file, model_dir, device="cpu"):
        self.device = device
        self.file = safe_open(file, framework="pt")
        self.batches = json.loads(self.file.metadata()["batches"])
        self.model_dir = model_dir
        self.processor = None

    def tokens(self, i):
        names = ["input_ids", "attention_mask"] + (["labels"] if self.batches[i]["labels"] else [])
        return {name: self.file.get_tensor(f"{i}.{name}").long().to(self.device) for name in names}

    def pixels(self, i):
        images = self.batches[i]["images"]
        pixels = self.decoded(images) if images else self.file.get_tensor(f"{i}.pixel_values")
        shared = self.batches[i].get("pictures")
        pixels = pixels.to(self.device)
        return pixels[torch.tensor(shared)] if shared else pixels  # transformers takes a picture for each row

    def decoded(self, images):
        from PIL import Image

        if self.processor is None:
            self.processor = transformers.AutoImageProcessor.from_pretrained(self.model_dir)
        return self.processor([Image.open(image) for image in images], return_tensors="pt")["pixel_values"]

    def __len__(self):
        return len(self.batches)


def peak_memory():
    """Of the whole process so far, mapped files included, as on the other side."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def loaded(began):
    """Figures of the moment at which the first step could begin."""
    return {"load_seconds": time.perf_counter() - began, "loaded_rss_bytes": peak_memory()}


def report(a, began, **figures):
    """One JSON line on stdout."""
    line = {
        "side": "pytorch",
        "threads": a.threads,
        "precision": a.precision,
        "attention": a.attention,
        "peak_rss_bytes": peak_memory(),
        "total_seconds": time.perf_counter() - began,
        **({"gpu_bytes": torch.cuda.max_memory_allocated()} if a.device == "cuda" else {}),
        **figures,
    }
    print(json.dumps(line), flush=True)
