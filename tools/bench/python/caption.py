"""Captions of a work file's pictures with transformers' generate: the other side of `blip2-bench caption`. Prints one JSON line."""

import time

BEGAN = time.perf_counter()

import torch  # noqa: E402
from baseline import Work, arguments, load_model, loaded, report, settle, synchronised  # noqa: E402


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--new-tokens", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    a = parser.parse_args()
    settle(a)
    model = load_model(a)
    work = Work(a.work, a.model, a.device)
    at_start = loaded(BEGAN)
    options = dict(num_beams=a.beams, do_sample=False, max_new_tokens=a.new_tokens, min_new_tokens=a.new_tokens)
    seconds, ids = [], []
    for i in range(a.repeat):
        start = time.perf_counter()
        with torch.inference_mode():
            pixels = work.pixels(i % len(work)).to(model.dtype)
            found = model.generate(pixel_values=pixels, **work.tokens(i % len(work)), **options)
        seconds.append(synchronised(a) - start)
        ids = found[:, -a.new_tokens :].tolist()
    batch = work.batches[0]["shape"][0]
    report(a, BEGAN, beams=a.beams, batch=batch, **at_start, seconds=seconds, ids=ids)


if __name__ == "__main__":
    main()
