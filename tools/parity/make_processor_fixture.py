"""Makes packages/data-captions/fixtures: small images of many kinds, and their pixels from PIL and HF's BLIP image processor.

    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 pillow==13.0.0
    python tools/parity/make_processor_fixture.py [packages/data-captions/fixtures]

fixtures/
  images/*            the pictures, all computed by formula
  processor.json      for every picture: mode, size and a list of arrays {alpha, kind, shape, dtype, at, bytes}
  processor.bin       the arrays, one after the other, zlib-compressed as a whole
Kinds: "rgb" = convert("RGB") before resizing [H,W,3]; "pixels" = the processor's integers after resizing [3,h,w];
"pixel_values" = the processor's normalised float32 [3,h,w].
Alpha: "drop" = PIL's convert("RGB"), as transformers did up to 5.17; "white" = transformers 5.23, which blends onto white.
"""

import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil


def plane(width, height, seed):
    """Waves, an edge and a little hash noise, 0..255, so that bicubic resizing clips at both ends."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    wave = 127.5 + 127.5 * np.sin((x * (3 + seed) + y * (5 - seed)) / 17.0)
    noise = ((x * 7919 + y * 104729 + seed * 31) * 2654435761 >> 16) % 32
    value = np.where((x // 8 + y // 5 + seed) % 4 == 0, 255 * ((x + y) % 2), wave + noise - 16)
    return np.clip(value, 0, 255).astype(np.uint8)


def rgb(width, height, channels=3):
    return np.stack([plane(width, height, c) for c in range(channels)], -1)


def rgb16_png(path, pixels):
    """A colour PNG with 16 bits per channel, which PIL cannot write."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")
    ]  # fmt: skip
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for tag, body in chunks:
            file.write(struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body)))


def make_images(folder):
    folder.mkdir(parents=True, exist_ok=True)
    png = {"optimize": True}
    Image.fromarray(rgb(37, 23)).save(folder / "rgb-37x23.png", **png)
    Image.fromarray(rgb(64, 64)).save(folder / "rgb-64x64.png", **png)
    Image.fromarray(rgb(32, 80)).save(folder / "rgb-32x80.png", **png)
    Image.fromarray(rgb(1, 1)).save(folder / "rgb-1x1.png", **png)
    Image.fromarray(rgb(3, 200)).save(folder / "rgb-3x200.png", **png)
    Image.fromarray(rgb(200, 1)).save(folder / "rgb-200x1.png", **png)
    Image.fromarray(rgb(300, 200) // 16 * 16).save(folder / "rgb-300x200.png", **png)
    Image.fromarray(plane(40, 50, 1)).save(folder / "grey-40x50.png", **png)
    Image.fromarray(plane(19, 31, 2) > 127).save(folder / "one-bit-19x31.png", **png)
    Image.fromarray(rgb(33, 47, 4)).save(folder / "rgba-33x47.png", **png)
    Image.fromarray(rgb(20, 24, 2), "LA").save(folder / "grey-alpha-20x24.png", **png)
    palette = Image.fromarray(rgb(45, 30)).quantize(16)
    palette.save(folder / "palette-45x30.png", **png)
    palette.save(folder / "palette-alpha-45x30.png", transparency=3, **png)
    palette.save(folder / "palette-45x30.gif")
    grey16 = plane(25, 27, 0).astype(np.uint16) * 3
    grey16[5:9] *= 80
    Image.fromarray(grey16).save(folder / "grey16-25x27.png", **png)
    Image.fromarray(grey16).save(folder / "grey16-25x27.tiff")
    rgb16_png(folder / "rgb16-21x34.png", rgb(21, 34).astype(np.uint16) * 257 ^ 90)
    Image.fromarray(rgb(37, 23)).save(folder / "rgb-37x23.tiff", compression="tiff_lzw")
    Image.fromarray(rgb(37, 23)).save(folder / "rgb-37x23.webp", lossless=True)
    Image.fromarray(rgb(56, 40)).save(folder / "lossy-56x40.webp", quality=80)
    Image.fromarray(rgb(56, 40)).save(folder / "rgb-56x40.jpg", quality=90)
    Image.fromarray(rgb(51, 33)).save(folder / "rgb-51x33-420.jpg", quality=75, subsampling=2)
    Image.fromarray(plane(40, 50, 1)).save(folder / "grey-40x50.jpg", quality=85)
    Image.fromarray(rgb(48, 32, 4), "CMYK").save(folder / "cmyk-48x32.jpg", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb(48, 32)).save(folder / "exif6-48x32.jpg", quality=90, exif=exif)
    return sorted(folder.iterdir())


def process(image, height, width, **options):
    return BlipImageProcessorPil(size={"height": height, "width": width}, **options)(image)["pixel_values"][0]


def main(folder):
    cases, body = {}, bytearray()
    for path in make_images(folder / "images"):
        image, arrays = Image.open(path), []
        has_alpha = "A" in image.getbands() or "transparency" in image.info

        def add(alpha, kind, array):
            array = np.ascontiguousarray(array)
            data = array.tobytes()
            arrays.append({"alpha": alpha, "kind": kind, "shape": array.shape, "dtype": str(array.dtype), "at": len(body), "bytes": len(data)})
            body.extend(data)

        plain = Image.fromarray(np.array(image.convert("RGB")))  # a bare array: no transparency left in its info
        if image.width * image.height <= 4096:
            add("drop", "rgb", np.array(plain))
        for height, width in ((32, 32), (64, 64), (40, 24)):
            if height == 64 and path.suffix != ".png" or height == 40 and not path.name.startswith("rgb-3"):
                continue
            raw = process(plain, height, width, do_rescale=False, do_normalize=False).astype(np.uint8)
            assert np.array_equal(raw, np.array(plain.resize((width, height), Image.Resampling.BICUBIC)).transpose(2, 0, 1))
            add("drop", "pixels", raw)
            white = process(image, height, width, do_rescale=False, do_normalize=False).astype(np.uint8)
            assert has_alpha or np.array_equal(raw, white)
            if has_alpha:
                add("white", "pixels", white)
        if path.name in ("rgb-37x23.png", "rgba-33x47.png"):
            add("drop", "pixel_values", process(plain, 32, 32))
            if has_alpha:
                add("white", "pixel_values", process(image, 32, 32))
        cases[path.name] = {"mode": image.mode, "size": image.size, "arrays": arrays}
    (folder / "processor.bin").write_bytes(zlib.compress(bytes(body), 9))
    lines = [f"  {json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items()]
    (folder / "processor.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "packages/data-captions/fixtures"))
