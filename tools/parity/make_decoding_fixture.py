"""Makes packages/data-captions/fixtures/decoding.json: small pictures of many formats and the pixels that PIL reads from them.

    pip install pillow==13.0.0 numpy
    python tools/parity/make_decoding_fixture.py [packages/data-captions/fixtures]

The file holds each picture and the results of PIL, by orientation ("exif" = ImageOps.exif_transpose, as transformers'
load_image and datasets do; "ignore" = none) and alpha ("drop" = convert("RGB"); "white" = transformers 5.23, blended onto
white): size and SHA-256 of the RGB bytes, or null where PIL refuses the file. Lossy AVIF has the bytes, to measure differences.
"""

import base64
import hashlib
import io
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin

W, H = 13, 9
ORIENTATION = 0x0112


def rgb(width=W, height=H, channels=3):
    """A ramp along each axis and a corner that shows where up is."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 19, y * 27, (x + y) * 11, 255 - x * y * 2]
    out = np.stack(planes[:channels], -1) % 256 if channels > 1 else (x * 19 + y * 5)[..., None] % 256
    out[:3, :4] = [250, 240, 230, 128][:channels]
    return out.astype(np.uint8)


def picture(channels=3, **size):
    pixels = rgb(channels=channels, **size)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def exif(value, endian="<", kind=3):
    data = struct.pack(endian + "HI", kind, 1) + struct.pack(endian + ("HH" if kind == 3 else "I"), *([value, 0] if kind == 3 else [value]))
    head = (b"II*\0" if endian == "<" else b"MM\0*") + struct.pack(endian + "I", 8)
    return b"Exif\0\0" + head + struct.pack(endian + "HH", 1, ORIENTATION) + data + struct.pack(endian + "I", 0)


def xmp(value):
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description tiff:Orientation="{value}" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"/></rdf:RDF></x:xmpmeta>'.encode()


def chunk(tag, body):
    return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))


def png(pixels, bits, colour, *chunks, after=b""):
    """PIL cannot write every kind of PNG: pixels [H, W, C] of `bits` per sample and PNG's colour type."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    if bits < 8:
        flags = (rows[..., None] >> np.arange(bits)[::-1] & 1).reshape(height, -1).astype(np.uint8)
        rows = np.packbits(flags, axis=1)
    else:
        rows = rows.astype(">u2" if bits == 16 else "u1")
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows), 9)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", body) + after + chunk(b"IEND", b"")


def oriented():
    for value in range(1, 9):
        yield f"exif{value}.jpg", saved(picture(), "JPEG", quality=90, exif=exif(value))
    yield "exif0.jpg", saved(picture(), "JPEG", quality=90, exif=exif(0))
    yield "exif9.jpg", saved(picture(), "JPEG", quality=90, exif=exif(9))
    yield "exif6-motorola.jpg", saved(picture(), "JPEG", quality=90, exif=exif(6, ">"))
    yield "exif6-long.jpg", saved(picture(), "JPEG", quality=90, exif=exif(6, kind=4))
    yield "exif8-grey.jpg", saved(picture(1), "JPEG", quality=90, exif=exif(8))
    yield "exif5-cmyk.jpg", saved(Image.fromarray(rgb(channels=4), "CMYK"), "JPEG", quality=90, exif=exif(5))
    yield "exif1-xmp6.jpg", saved(picture(), "JPEG", quality=90, exif=exif(1), xmp=xmp(6))
    yield "xmp6.jpg", saved(picture(), "JPEG", quality=90, xmp=xmp(6))
    yield "broken-exif.jpg", saved(picture(), "JPEG", quality=90, exif=exif(6)[:18])
    yield "exif6.mpo", saved(picture(), "MPO", save_all=True, append_images=[picture(width=7)], exif=exif(6))
    for value in (2, 6):
        yield f"exif{value}.png", png(rgb(), 8, 2, chunk(b"eXIf", exif(value)[6:]))
    yield "exif6-after.png", png(rgb(), 8, 2, after=chunk(b"eXIf", exif(6)[6:]))
    yield "exif7-rgba.png", png(rgb(channels=4), 8, 6, chunk(b"eXIf", exif(7)[6:]))
    text = f"\nexif\n{len(exif(6)):8}\n{exif(6).hex()}\n"
    yield "exif6-raw-profile.png", png(rgb(), 8, 2, chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text.encode())))
    yield "xmp6.png", png(rgb(), 8, 2, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6)))
    for value in (3, 6):
        yield f"exif{value}.webp", saved(picture(), "WEBP", lossless=True, exif=exif(value))
    yield "xmp8.webp", saved(picture(), "WEBP", lossless=True, xmp=xmp(8))
    for value in (2, 5, 6):
        yield f"orientation{value}.tiff", saved(picture(), "TIFF", tiffinfo={ORIENTATION: value})


def avifs():
    for subsampling in ("4:4:4", "4:2:0", "4:2:2", "4:0:0"):
        for range_ in ("full", "limited"):
            image = picture(1 if subsampling == "4:0:0" else 3, width=26, height=18)
            yield f"{subsampling.replace(':', '')}-{range_}.avif", saved(image, "AVIF", quality=80, subsampling=subsampling, range=range_)
    for value in range(2, 9):
        yield f"exif{value}.avif", saved(picture(width=26, height=18), "AVIF", quality=95, subsampling="4:4:4", exif=exif(value))
    for value in (3, 6):
        yield f"exif{value}-420.avif", saved(picture(width=26, height=18), "AVIF", quality=90, subsampling="4:2:0", exif=exif(value))
    for value, subsampling in ((1, "4:2:0"), (3, "4:2:0"), (5, "4:2:0"), (2, "4:2:2"), (6, "4:2:2")):
        image = picture(width=27, height=19)
        name = f"odd-exif{value}-{subsampling.replace(':', '')}.avif"
        yield name, saved(image, "AVIF", quality=95, subsampling=subsampling, exif=exif(value))
    yield "clap-420.avif", with_clap(saved(picture(width=26, height=18), "AVIF", quality=95, subsampling="4:2:0"), 15, 11)
    yield "rgba-420.avif", saved(picture(4, width=26, height=18), "AVIF", quality=95, subsampling="4:2:0")
    yield "rgba.avif", saved(picture(4, width=26, height=18), "AVIF", quality=95, subsampling="4:4:4")


def boxes(data, start, end):
    """Name → begin and end of the boxes of an AVIF file."""
    found = {}
    while start + 8 <= end:
        size, name = struct.unpack(">I4s", data[start : start + 8])
        found[name] = (start, start + size)
        start += size
    return found


def with_clap(data, width, height):
    """An AVIF file of one item with a clean aperture in its middle, which libheif crops to and PIL does not."""
    clap = struct.pack(">I4s8I", 40, b"clap", width, 1, height, 1, 0, 1, 0, 1)
    meta, meta_end = boxes(data, 0, len(data))[b"meta"]
    inner = boxes(data, meta + 12, meta_end)
    iprp, iprp_end = inner[b"iprp"]
    properties = boxes(data, iprp + 8, iprp_end)
    (ipco, ipco_end), (ipma, ipma_end) = properties[b"ipco"], properties[b"ipma"]
    index = len(boxes(data, ipco + 8, ipco_end)) + 1
    uses = bytearray(data[ipma:ipma_end])  # size, name, version, entries (4), item (2), number of properties, properties
    uses[18] += 1
    uses += bytes([0x80 | index])
    struct.pack_into(">I", uses, 0, len(uses))
    out = bytearray(data[:ipco_end] + clap + data[ipco_end:ipma] + uses + data[ipma_end:])
    grown = len(clap) + 1
    for at, more in ((meta, grown), (iprp, grown), (ipco, len(clap)), (inner[b"iloc"][0] + 22, grown)):
        struct.pack_into(">I", out, at, struct.unpack_from(">I", out, at)[0] + more)
    return bytes(out)


def others():
    yield "rgba16.png", png(rgb(channels=4).astype(int) * 257 ^ 90, 16, 6)
    yield "grey-alpha16.png", png(rgb(channels=2).astype(int) * 257 ^ 90, 16, 4)
    yield "grey16-transparent.png", png(rgb(channels=1).astype(int) * 3, 16, 0, chunk(b"tRNS", struct.pack(">H", 57)))
    for bits in (1, 2, 4):
        grey = rgb(channels=1) >> 8 - bits
        yield f"grey{bits}.png", png(grey, bits, 0)
    # not 2 and 4 bits: PIL compares their transparent level with the scaled samples, so nothing is transparent
    yield "grey1-transparent.png", png(rgb(channels=1) >> 7, 1, 0, chunk(b"tRNS", struct.pack(">H", 1)))
    yield "grey8-transparent.png", png(rgb(channels=1), 8, 0, chunk(b"tRNS", struct.pack(">H", 250)))
    yield "rgb8-transparent.png", png(rgb(), 8, 2, chunk(b"tRNS", struct.pack(">HHH", 250, 240, 230)))
    colours = np.arange(48, dtype=np.uint8).reshape(16, 3) * 5
    index = rgb(channels=1) >> 4
    for bits in (4, 8):
        yield f"palette{bits}-transparent.png", png(index, bits, 3, chunk(b"PLTE", colours.tobytes()), chunk(b"tRNS", bytes([9, 90, 200])))
    frames = [picture(), ImageOps.invert(picture())]
    yield "animated.png", saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield "animated.webp", saved(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:])
    yield "rgba.webp", saved(picture(4), "WEBP", lossless=True, exact=True)
    yield "pages.tiff", saved(frames[0], "TIFF", save_all=True, append_images=[picture(width=5)])
    yield "ycck.jpg", ycck(saved(Image.fromarray(rgb(channels=4), "CMYK"), "JPEG", quality=90))
    yield "progressive.jpg", saved(picture(), "JPEG", quality=90, progressive=True)
    for compression in ("raw", "tiff_deflate", "packbits"):
        yield f"rgb-{compression}.tiff", saved(picture(), "TIFF", compression=compression)
    yield "grey.tiff", saved(picture(1), "TIFF")
    yield "rgba.tiff", saved(picture(4), "TIFF")
    yield "grey-alpha.tiff", saved(picture(2), "TIFF")
    yield "cmyk.tiff", saved(Image.fromarray(rgb(channels=4), "CMYK"), "TIFF")
    yield "palette.tiff", saved(picture().quantize(16), "TIFF")
    yield "one-bit.tiff", saved(picture(1).convert("1"), "TIFF", compression="group4")
    yield "grey16.tiff", saved(Image.fromarray(rgb(channels=1)[..., 0].astype(np.uint16) * 3), "TIFF")
    yield "grey16-big-endian.tiff", saved(Image.fromarray(rgb(channels=1)[..., 0].astype(">u2") * 3), "TIFF")
    yield "float.tiff", saved(Image.fromarray(rgb(channels=1)[..., 0].astype(np.float32) * 1.3 - 20), "TIFF")
    yield "int32.tiff", saved(Image.fromarray(rgb(channels=1)[..., 0].astype(np.int32) * 2 - 20), "TIFF")
    yield "rgb16.tiff", rgb16_tiff(rgb().astype(np.uint16) * 257 ^ 90)
    yield "white-is-zero.tiff", rgb16_tiff(rgb(channels=1), photometric=0)


def rgb16_tiff(pixels, photometric=2):
    height, width, channels = pixels.shape
    bits = pixels.dtype.itemsize * 8
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, kind, value in ((256, 4, width), (257, 4, height), (258, 3, (bits,) * channels), (259, 3, 1), (262, 3, photometric), (273, 4, 8), (277, 3, channels), (278, 4, height), (279, 4, pixels.nbytes)):
        ifd.tagtype[tag] = kind
        ifd[tag] = value
    body = pixels.tobytes()
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + tiff_entries(ifd, 8 + len(body))


def tiff_entries(ifd, at):
    end, extra, entries = at + 2 + 12 * len(ifd) + 4, b"", b""
    for tag in sorted(ifd):
        values = ifd[tag] if isinstance(ifd[tag], tuple) else (ifd[tag],)
        kind = ifd.tagtype[tag]
        data = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(data) > 4:
            data, extra = struct.pack("<I", end + len(extra)), extra + data
        entries += struct.pack("<HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    return struct.pack("<H", len(ifd)) + entries + struct.pack("<I", 0) + extra


def ycck(jpeg):
    """The same samples, declared to be YCCK by the Adobe marker."""
    at = jpeg.index(b"Adobe") + 11
    return jpeg[:at] + b"\2" + jpeg[at + 1 :]


def gif(canvas, frame, index, colours=None, local=None, transparent=None, background=0, interlaced=False, after=b""):
    """A GIF with uncompressed codes: frame = (left, top, width, height), index = its samples."""
    left, top, width, height = frame

    def table(colours):
        return (0x80 | (len(colours) // 3 - 1).bit_length() - 1, colours) if colours else (0, b"")

    flags, body = table(colours)
    out = b"GIF89a" + struct.pack("<HHBBB", *canvas, flags, background, 0) + body
    if transparent is not None:
        out += b"\x21\xf9\4" + struct.pack("<BHB", 1, 0, transparent) + b"\0"
    local_flags, local_body = table(local)
    out += b"," + struct.pack("<HHHHB", left, top, width, height, local_flags | (0x40 if interlaced else 0)) + local_body
    samples, bits = list(np.asarray(index).reshape(-1)), 3
    codes, width_ = [], bits + 1
    for at in range(0, len(samples), 6):  # a clear code before the width of codes would grow
        codes += [1 << bits, *samples[at : at + 6]]
    codes.append((1 << bits) + 1)
    number = sum(int(code) << i * width_ for i, code in enumerate(codes))
    data = number.to_bytes((len(codes) * width_ + 7) // 8, "little")
    blocks = b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255))
    return out + bytes([bits]) + blocks + b"\0" + after + b";"


def gifs():
    colours = bytes(range(10, 250, 10))  # 8 colours
    index = rgb(channels=1)[..., 0] % 8
    small = (2, 1, W, H)
    for canvas in ((640, 480), (800, 600), (1024, 768), (2049, 2), (20, 15)):
        yield f"canvas-{canvas[0]}x{canvas[1]}.gif", gif(canvas, (0, 0, 1, 1), [[3]], colours)
    yield "offset.gif", gif((20, 15), small, index, colours, background=5)
    yield "offset-transparent.gif", gif((20, 15), small, index, colours, transparent=4, background=5)
    yield "whole-transparent.gif", gif((W, H), (0, 0, W, H), index, colours, transparent=2)
    yield "larger-than-canvas.gif", gif((5, 20), small, index, colours)
    yield "local-palette.gif", gif((W, H), (0, 0, W, H), index, colours, local=colours[::-1])
    yield "local-palette-only.gif", gif((20, 15), small, index, local=colours)
    yield "no-palette.gif", gif((20, 15), small, index)
    yield "grey-palette.gif", gif((20, 15), small, index, bytes(v for i in range(8) for v in (i, i, i)))
    yield "short-palette.gif", gif((W, H), (0, 0, W, H), index, colours[:12])
    yield "transparent-beyond-palette.gif", gif((20, 15), small, index % 4, colours[:12], transparent=200)
    yield "interlaced.gif", gif((W, 19), (0, 0, W, 19), rgb(W, 19, 1)[..., 0] % 8, colours, interlaced=True)
    yield "too-few-codes.gif", gif((W, H), (0, 0, W, H), index[:5], colours)
    yield "cut-off.gif", gif((W, H), (0, 0, W, H), index, colours)[:-40]
    frames = [picture().quantize(64), picture(channels=1).convert("P")]
    yield "animated.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    big = Image.fromarray(rgb(150, 120)).quantize(256)
    yield "long-codes.gif", saved(big, "GIF")
    noise = np.arange(90 * 80) * 2654435761 >> 13 & 255
    yield "full-table.gif", saved(Image.fromarray(noise.reshape(80, 90).astype(np.uint8)), "GIF")


def bmp(rows, bits, compression=0, head=40, palette=b"", masks=(), top_down=False, size=(W, H), gap=0, colours=0):
    width, height = size
    fields = struct.pack("<I", head)
    if head == 12:
        fields += struct.pack("<HHHH", width, height, 1, bits)
    else:
        fields += struct.pack("<iiHHIIiiII", width, -height if top_down else height, 1, bits, compression, len(rows), 2835, 2835, colours, 0)
        mask = b"".join(struct.pack("<I", m) for m in masks)
        fields = fields + mask if head == 40 else (fields + mask).ljust(head, b"\0")
    start = 14 + len(fields) + len(palette) + gap
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + fields + palette + bytes(gap) + rows


def bmp_rows(samples, bits):
    """[H, W] samples of `bits`, bottom row first, each row padded to 4 bytes."""
    out = b""
    for row in samples[::-1]:
        if bits < 8:
            flags = (row[:, None] >> np.arange(bits)[::-1] & 1).reshape(-1).astype(np.uint8)
            data = np.packbits(flags).tobytes()
        else:
            data = b"".join(int(v).to_bytes(bits // 8, "little") for v in row)
        out += data + bytes(-len(data) % 4)
    return out


def bmps():
    colours = [bytes((i * 16, 255 - i * 9, i * 3, 0)) for i in range(16)]
    quads, triples = b"".join(colours), b"".join(c[:3] for c in colours)
    index = rgb(channels=1)[..., 0].astype(int) >> 4
    p = rgb().astype(int)
    packed = p[..., 0] << 16 | p[..., 1] << 8 | p[..., 2]
    alpha = packed | rgb(channels=4)[..., 3].astype(int) << 24
    high = p[..., 0] >> 3 << 10 | p[..., 1] >> 3 << 5 | p[..., 2] >> 3
    green6 = p[..., 0] >> 3 << 11 | p[..., 1] >> 2 << 5 | p[..., 2] >> 3
    yield "rgb24.bmp", bmp(bmp_rows(packed, 24), 24)
    yield "rgb24-top-down.bmp", bmp(bmp_rows(packed[::-1], 24), 24, top_down=True)
    yield "rgb24-os2.bmp", bmp(bmp_rows(packed, 24), 24, head=12)
    yield "rgb24-v5.bmp", bmp(bmp_rows(packed, 24), 24, head=124)
    yield "rgb24-gap.bmp", bmp(bmp_rows(packed, 24), 24, gap=7)
    yield "rgb32.bmp", bmp(bmp_rows(alpha, 32), 32)
    yield "rgb16.bmp", bmp(bmp_rows(high, 16), 16)
    yield "rgb16-555.bmp", bmp(bmp_rows(high, 16), 16, 3, masks=(0x7C00, 0x3E0, 0x1F))
    yield "rgb16-565.bmp", bmp(bmp_rows(green6, 16), 16, 3, masks=(0xF800, 0x7E0, 0x1F))
    yield "rgb16-444.bmp", bmp(bmp_rows(high, 16), 16, 3, masks=(0xF00, 0xF0, 0xF))
    yield "rgb24-masks.bmp", bmp(bmp_rows(packed, 24), 24, 3, masks=(0xFF0000, 0xFF00, 0xFF))
    for name, masks in {
        "bgrx": (0xFF0000, 0xFF00, 0xFF, 0), "xbgr": (0xFF000000, 0xFF0000, 0xFF00, 0), "bgxr": (0xFF000000, 0xFF00, 0xFF, 0),
        "abgr": (0xFF000000, 0xFF0000, 0xFF00, 0xFF), "rgba": (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        "bgra": (0xFF0000, 0xFF00, 0xFF, 0xFF000000), "bgar": (0xFF000000, 0xFF00, 0xFF, 0xFF0000), "zero": (0, 0, 0, 0),
    }.items():  # fmt: skip
        yield f"rgb32-{name}.bmp", bmp(bmp_rows(alpha, 32), 32, 3, head=108, masks=masks)
    yield "rgb32-masks-after-header.bmp", bmp(bmp_rows(alpha, 32), 32, 3, masks=(0xFF0000, 0xFF00, 0xFF))
    yield "rgb32-masks-v2.bmp", bmp(bmp_rows(alpha, 32), 32, 3, head=52, masks=(0xFF0000, 0xFF00, 0xFF))
    for bits, count in ((1, 2), (4, 16), (8, 16)):
        samples = index >> 3 if bits == 1 else index
        for head, padding in ((12, 3), (40, 4), (64, 4)):
            palette = b"".join(c[:padding] for c in (colours[5], colours[12])) if bits == 1 else triples if padding == 3 else quads
            if bits == 8 and head == 12:
                palette = palette.ljust(768, b"\0")
            yield f"palette{bits}-{head}.bmp", bmp(bmp_rows(samples, bits), bits, head=head, palette=palette, colours=0 if bits < 8 else count)
    grey = b"".join(bytes((i, i, i, 0)) for i in range(256))
    yield "grey8.bmp", bmp(bmp_rows(rgb(channels=1)[..., 0], 8), 8, palette=grey)
    yield "black-white1.bmp", bmp(bmp_rows(index >> 3, 1), 1, palette=b"\0\0\0\0\xff\xff\xff\0")
    yield "white-black1.bmp", bmp(bmp_rows(index >> 3, 1), 1, palette=b"\xff\xff\xff\0\0\0\0\0")
    yield "palette8-few.bmp", bmp(bmp_rows(index, 8), 8, palette=quads[:20], colours=5)
    yield "palette8-top-down.bmp", bmp(bmp_rows(index[::-1], 8), 8, palette=quads, colours=16, top_down=True)
    rle8 = b"".join(bytes([4, r, 0, 5, 1, 2, 3, 4, 5, 0, 4, 9 - r, 0, 0]) for r in range(H)) + b"\0\1"
    yield "rle8.bmp", bmp(rle8, 8, 1, palette=quads, colours=16)
    yield "rle8-top-down.bmp", bmp(rle8, 8, 1, palette=quads, colours=16, top_down=True)
    yield "rle8-jumps.bmp", bmp(bytes([3, 7, 0, 2, 4, 2, 5, 9, 0, 0, 0, 0, 20, 6, 0, 1]), 8, 1, palette=quads, colours=16)
    rle4 = b"".join(bytes([5, r << 4 | 3, 0, 5, 0x12, 0x34, 0x50, 0, 3, 0xA9, 0, 0]) for r in range(H)) + b"\0\1"
    yield "rle4.bmp", bmp(rle4, 4, 2, palette=quads)
    yield "jpeg-inside.bmp", bmp(b"\xff\xd8\xff", 24, 4)
    yield "cut-off.bmp", bmp(bmp_rows(packed, 24), 24)[:-50]
    yield "pil.bmp", saved(picture(), "BMP")
    yield "pil-rgba.bmp", saved(picture(4), "BMP")


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def to_rgb(image, alpha):
    """`drop`: PIL; `white`: transformers.image_transforms.convert_to_rgb of 5.23."""
    if alpha == "white" and ("A" in image.getbands() or image.info.get("transparency") is not None):
        background = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def golden(data, lossy):
    results = {}
    for orientation in ("exif", "ignore"):
        for alpha in ("drop", "white"):
            try:
                image = Image.open(io.BytesIO(data))
                image = to_rgb(ImageOps.exif_transpose(image) if orientation == "exif" else image, alpha)
            except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
                print("refused:", type(error).__name__, error)
                return None
            body = image.tobytes()
            key = {"rgb": base64.b64encode(zlib.compress(body, 9)).decode()} if lossy else {"sha256": hashlib.sha256(body).hexdigest()}
            results.setdefault(orientation, {})[alpha] = {"width": image.width, "height": image.height, **key}
    return results


def main(folder):
    cases = {}
    for group in (oriented, others, avifs, gifs, bmps):
        for name, data in group():
            print(name, len(data))
            cases[name] = {"file": base64.b64encode(data).decode(), "pil": golden(data, group is avifs)}
    lines = [f"  {json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items()]
    (folder / "decoding.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "packages/data-captions/fixtures"))
