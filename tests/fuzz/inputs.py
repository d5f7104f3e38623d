"""Damaged and hostile files, made from whole ones by a random generator."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from hashlib import sha256
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from edge.card import CARD_NAME, attached, flatbuffer_of

FORMATS: dict[str, dict[str, Any]] = {
    ".jpg": {"format": "JPEG", "quality": 85},
    ".jpeg": {"format": "JPEG", "progressive": True},
    ".png": {"format": "PNG"},
    ".webp": {"format": "WEBP"},
    ".gif": {"format": "GIF"},
    ".tif": {"format": "TIFF", "compression": "tiff_lzw"},
    ".tiff": {"format": "TIFF", "compression": "jpeg"},
    ".bmp": {"format": "BMP"},
    ".avif": {"format": "AVIF"},
}
HEADER = 200  # bytes in which sizes and tables lie
NAMES = (  # what bends a terminal, HTML, Markdown, a spreadsheet, a path
    "\x1b[2J\x1b[31mred\x1b]0;title\x07",
    "x\nedgegraft: error: forged",
    "\u202egpj.exe",
    "<img src=http://{host}/a onerror=alert(1)>",
    "![a](http://{host}/b) **bold** :material/home:",
    '=HYPERLINK("http://{host}/c","cat")',
    "$$\\href{http://{host}/d}{x}$$",
    "../../../etc/passwd",
    "\udcff\ud800",
    "ca\0t",
    "n" * 300,
    "{labels}{0.__class__}%s",
)
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 10**400, 1e308, 1e400, float("nan"), 0.5, "", "x",
    [], {}, [[1]], [None], {"a": []}, ["x"] * 5, "n" * 100_000, {"probabilities": {}},
    *NAMES,
)  # fmt: skip


def damaged(whole: bytes, rng: Random, other: bytes = b"") -> bytes:
    """Cut short, bytes changed anywhere or in the header, a part of another file."""
    way, data = rng.randrange(5), bytearray(whole)
    if way == 0:
        return whole[: rng.randrange(len(whole) or 1)]
    if way == 1 and other:
        at = rng.randrange(min(len(other), HEADER))
        return other[:at] + whole[at:]
    if way == 2:
        start = rng.randrange(len(whole) or 1)
        part = whole[start : start + rng.randrange(1, 64)]
        at = rng.randrange(len(whole) or 1)
        return whole[:at] + part * rng.randrange(1, 9) + whole[at:]
    reach = len(data) if way == 3 else min(len(data), HEADER)
    for _ in range(rng.randrange(1, 20)):
        data[rng.randrange(reach)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 17))
    return bytes(data)


# --- JSON -----------------------------------------------------------------------------
def hostile_json(record: Any, rng: Random, host: str = "localhost:9") -> bytes:
    """A record with some values replaced, added or taken away, or with other text."""
    text = json.dumps(record)
    way = rng.randrange(12)
    if way == 0:
        return damaged(text.encode(), rng)
    if way == 1:
        depth = rng.choice((20, 40, 900, 100_000))
        return text[:-1].encode() + b', "x": ' + b"[" * depth + b"]" * depth + b"}"
    if way == 2:
        wide = b"0," * rng.choice((1000, 1_000_000)) + b"0"
        return text[:-1].encode() + b', "x": [' + wide + b"]}"
    if way == 3:
        odd = (text.encode("utf-16"), b"\xff\xfe" + text.encode(), text.encode() * 2)
        return rng.choice((*odd, b"", b"null", b"[]", b'"x"'))
    record = json.loads(text)
    for _ in range(rng.randrange(1, 4)):
        _change(record, rng, host)
    return json.dumps(record).encode()


def _change(record: Any, rng: Random, host: str) -> None:
    """Another value at a random place of a record of lists and objects."""
    inside = record
    while isinstance(inside, (dict, list)) and inside:
        key: Any = rng.choice(list(inside) if isinstance(inside, dict) else [0])
        if isinstance(inside, list):
            key = rng.randrange(len(inside))
        deeper = inside[key]
        if isinstance(deeper, (dict, list)) and deeper and rng.random() < 0.7:
            inside = deeper
            continue
        value = rng.choice(VALUES)
        value = value.replace("{host}", host) if isinstance(value, str) else value
        if rng.random() < 0.1:
            del inside[key]
        else:
            inside[key] = value
        return


# --- photos ---------------------------------------------------------------------------
def photos(rng: Random) -> dict[str, bytes]:
    """One small whole photo in each format."""
    noise = np.frombuffer(rng.randbytes(6 * 8 * 3), np.uint8).reshape(6, 8, 3)
    image = Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC)
    whole = {}
    for suffix, options in FORMATS.items():
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = rng.randrange(1, 9)
        if options["format"] in ("JPEG", "WEBP"):
            options = {**options, "exif": exif}
        image.save(file, **options)
        whole[suffix] = file.getvalue()
    return whole


def costly_photo(rng: Random) -> tuple[str, bytes]:
    """A small file that says it is large: its suffix and content."""
    side = rng.choice((3000, 9000, 20_000, 65_000))
    way = rng.randrange(4)
    if way == 0:  # PNG in a mode that Pillow converts: RGBA, palette, 16 bits, grey
        depth, colour = rng.choice(((8, 6), (8, 3), (16, 2), (8, 4), (1, 0)))
        packer = zlib.compressobj(9)
        row = bytes(1 + side * depth * (1, 0, 3, 1, 2, 0, 4)[colour] // 8)
        rows = min(side, 60_000_000 // len(row))
        body = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
        head = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
        palette = _chunk(b"PLTE", bytes(768)) if colour == 3 else b""
        png = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + palette
        return ".png", png + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")
    if way == 1:  # a JPEG whose scans say nothing
        whole = photos(rng)[".jpeg"]
        start = whole.index(b"\xff\xda")
        scans = whole[start:-2] * rng.choice((5, 1500))
        return ".jpg", whole[:-2] + scans + b"\xff\xd9"
    file = io.BytesIO()
    kind = ("WEBP", "BMP")[way - 2]
    Image.new("L", (min(side, 16_000),) * 2 if way == 2 else (4000, 4000)).convert(
        "RGB"
    ).save(file, kind, **({"lossless": True, "method": 0} if way == 2 else {}))
    return f".{kind.lower()}", file.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    packed = struct.pack(">I", len(body)) + name + body
    return packed + struct.pack(">I", zlib.crc32(name + body))


# --- models ---------------------------------------------------------------------------
def with_card(network: bytes, card: bytes, labels: bytes) -> bytes:
    """A network with files behind it, as TFLite Metadata has them."""
    file = io.BytesIO(network)
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as behind:
        behind.writestr("labels.txt", labels)
        behind.writestr(CARD_NAME, card)
    return file.getvalue()


def parts(model: bytes) -> tuple[bytes, dict[str, Any]]:
    """The network and the card of one of our files."""
    behind = attached(model)
    assert behind is not None
    return flatbuffer_of(model, behind), json.loads(behind.read(CARD_NAME))


def hostile_model(whole: bytes, rng: Random) -> bytes:
    """Numbers of the flatbuffer changed; with a card that fits it, or with none."""
    network, card = parts(whole)
    changed = bytearray(network)
    if rng.random() < 0.15:
        changed = bytearray(damaged(network, rng))
    for _ in range(rng.randrange(1, 4)):
        # the structure lies at the start and at the end, weights between
        reach = min(len(changed), 4000)
        at = rng.choice((0, max(len(changed) - reach, 0))) + rng.randrange(reach or 1)
        at -= at % 4
        number = rng.choice((-1, 0, 1, 2, 5, 64, 127, 255, 4096, 2**20, 2**31 - 1))
        if at + 4 <= len(changed):
            struct.pack_into("<i", changed, at, number)
    if rng.random() < 0.3:
        return bytes(changed)
    card["model_sha256"] = sha256(changed).hexdigest()
    return with_card(bytes(changed), json.dumps(card).encode(), b"a\nb\n")


def hostile_card(whole: bytes, rng: Random) -> bytes:
    """The network as it is, with another card."""
    network, card = parts(whole)
    card["model_sha256"] = sha256(network).hexdigest()
    return with_card(network, hostile_json(card, rng), b"a\nb\n")


# --- archives -------------------------------------------------------------------------
def archive(photo: bytes, rng: Random) -> tuple[str, bytes]:
    """A ZIP or tar of photos with one odd entry, or damaged: its suffix and content."""
    names = [f"{label}/{n}.jpg" for label in ("cat", "dog") for n in range(2)]
    odd = rng.choice(
        (
            *(f"cat/{name}.jpg" for name in NAMES),
            "../../evil.jpg", "/tmp/evil.jpg", "..\\evil.jpg", "C:/evil.jpg",
            "d/" * 1500 + "a.jpg", "CAT/0.JPG", "cat/0.jpg/b.jpg", "cat//x.jpg",
        )
    ).encode("utf-8", "replace").decode()  # fmt: skip
    file, tar = io.BytesIO(), rng.random() < 0.5
    make: Callable[[io.BytesIO, str, list[str], bytes, Random], str] = (
        _tar if tar else _zip
    )
    suffix = make(file, odd, names, photo, rng)
    content = file.getvalue()
    return suffix, damaged(content, rng) if rng.random() < 0.4 else content


def _zip(
    file: io.BytesIO, odd: str, names: list[str], photo: bytes, rng: Random
) -> str:
    ways = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
    with zipfile.ZipFile(file, "w", rng.choice((*ways, zipfile.ZIP_LZMA))) as packed:
        for name in names:
            packed.writestr(name, photo)
        entry = zipfile.ZipInfo(odd.replace("\0", "_"))
        entry.external_attr = rng.choice((0, 0o120777, 0o010777, 0o104777)) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        bomb = bytes(60_000_000) if rng.random() < 0.1 else photo
        packed.writestr(entry, rng.choice((photo, b"/etc/passwd", bomb)))
    return ".zip"


def _tar(
    file: io.BytesIO, odd: str, names: list[str], photo: bytes, rng: Random
) -> str:
    packing = rng.choice(("", "gz", "bz2", "xz"))
    with tarfile.open(fileobj=file, mode=f"w:{packing}") as packed:  # type: ignore[call-overload]
        for name in [*names, odd]:
            entry = tarfile.TarInfo(name)
            entry.size = len(photo)
            if name == odd:
                kinds = (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)
                entry.type = rng.choice((*kinds, tarfile.FIFOTYPE, tarfile.CHRTYPE))
                entry.linkname = rng.choice(("/etc/passwd", "../..", "cat/0.jpg"))
                entry.size *= entry.type == tarfile.REGTYPE
            packed.addfile(entry, io.BytesIO(photo))
    return f".tar.{packing}" if packing else ".tar"
