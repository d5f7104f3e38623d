"""A folder to copy to a device: model, program, requirements, service, README.

The program is this very package as one file (a zipapp, PEP 441), so the device runs
the code that measured the model. The same sources and model give the same bytes.

It does not know: how anything gets to the device, or which device it is.
"""

from __future__ import annotations

import argparse
import io
import os
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING

from edge.card import read_card, read_labels
from edge.errors import EdgegraftError, ModelError
from edge.files import write_atomic
from edge.run_folder import find_model
from edge.runtime import read_model

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

MODEL, PROGRAM = "model.tflite", "edge.pyz"
REQUIREMENTS, README = "requirements.txt", "README.md"
UNIT = "edgegraft.service"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip's first day: equal sources, equal bytes
_MAIN = """import sys
from edge.cli import main
sys.exit(main(prog="python edge.pyz"))
"""
# LiteRT has no wheel for 32-bit Arm; tflite-runtime 2.14 was built against numpy 1.
# Where neither has one (Python 3.12 there, a Pi Zero), pip must fail and say so.
_NEEDS = """numpy>=1.23.2
pillow>=9.4
ai-edge-litert>=1.3; platform_machine != "armv7l" and platform_machine != "armv6l"
tflite-runtime==2.14.0; platform_machine == "armv7l" or platform_machine == "armv6l"
numpy<2; platform_machine == "armv7l" or platform_machine == "armv6l"
"""
_TOLD = """# {name} ({variant}, {size:.1f} MB): {labels}
Copy this folder to the device (Python 3.10 to 3.13), then in it:

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python edge.pyz doctor                      # is everything there?
    venv/bin/python edge.pyz classify model.tflite photo.jpg

A 32-bit system (`getconf LONG_BIT`) needs Python 3.11 or older; if `uname -m` says
aarch64 there: venv/bin/pip install pillow 'numpy<2' tflite-runtime==2.14.0
Also: `camera model.tflite` (pip install opencv-python-headless), `evaluate`, `bench`,
`info`, `--help`. As a service, from /opt/edgegraft: see edgegraft.service.
"""
# Type=notify and the watchdog: edge/camera/service.py tells systemd that frames are
# handled.
_SERVICE = """# sudo cp -r . /opt/edgegraft
# sudo cp edgegraft.service /etc/systemd/system/
# sudo systemctl enable --now edgegraft; journalctl -fu edgegraft shows the answers
[Unit]
Description=edgegraft: what the camera shows
After=multi-user.target

[Service]
Type=notify
WorkingDirectory=/opt/edgegraft
ExecStart=/opt/edgegraft/venv/bin/python edge.pyz camera model.tflite --json --events \
  --fps 5 --hold 1 --wait
Restart=always
RestartSec=5
WatchdogSec=60
DynamicUser=yes
SupplementaryGroups=video

[Install]
WantedBy=multi-user.target
"""


def run(args: argparse.Namespace) -> int:
    """The verb ``pack``."""
    model, why = find_model(args.model, args.variant)
    written = pack(model, args.output, overwrite=args.overwrite)
    if why:
        print(why)
    for path in written:
        print(f"{os.path.getsize(path):10,}  {path}")
    target = os.path.basename(os.path.abspath(args.output))
    print(f"next: scp -r {args.output} pi@raspberrypi: and read {target}/{README}")
    return 0


def pack(
    model: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> list[str]:
    """Write the folder; the paths written.

    ModelError as `contents`; EdgegraftError when one of the files is there already and
    `overwrite` is not given.
    """
    parts = contents(model)
    folder = os.fspath(folder)
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise EdgegraftError(f"{folder}: expected a folder to write to, got a file")
    there = [name for name in parts if os.path.exists(os.path.join(folder, name))]
    if there and not overwrite:
        raise EdgegraftError(
            f"{os.path.join(folder, there[0])}: is there already; give --overwrite or "
            "another -o DIR"
        )
    paths = {name: os.path.join(folder, name) for name in parts}
    for name, path in paths.items():
        write_atomic(path, parts[name])
    return list(paths.values())


def contents(model: str | os.PathLike[str]) -> dict[str, bytes]:
    """Name and bytes of every file in the folder.

    ModelError for a model that is damaged or has no labels inside.
    """
    content = read_model(model)
    card = read_card(content)
    labels = card.labels if card else read_labels(content)
    if not labels:
        raise ModelError(
            f"{os.fspath(model)}: expected a model with labels inside, got one without;"
            " copy it with its label file by hand"
        )
    readme = _TOLD.format(
        name=card.name if card else os.path.basename(model),
        variant=card.variant if card else "foreign file",
        size=len(content) / 1e6,
        labels=", ".join(labels[:6]) + (", ..." if len(labels) > 6 else ""),
    )
    return {
        MODEL: content,
        PROGRAM: program(),
        REQUIREMENTS: _NEEDS.encode(),
        UNIT: _SERVICE.encode(),
        README: readme.encode(),
    }


def zipped(model: str | os.PathLike[str], folder: str) -> bytes:
    """The same as one ZIP, in which all lies in `folder`. ModelError as `contents`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents(model).items():
            entry = _entry(f"{folder}/{name}")
            entry.external_attr = 0o644 << 16  # unzip would make it readable to nobody
            archive.writestr(entry, content)
    return file.getvalue()


def program() -> bytes:
    """This package as a zipapp: ``python edge.pyz VERB`` and ``-m edge`` in it."""
    file = io.BytesIO(b"#!/usr/bin/env python3\n")
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry("__main__.py"), _MAIN)
        for name, source in sorted(_sources(files("edge"), "edge")):
            archive.writestr(_entry(name), source)
    return file.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Every Python file of the package, also when it runs from a zip itself."""
    for part in folder.iterdir():
        if part.is_dir() and part.name != "__pycache__":
            yield from _sources(part, f"{prefix}/{part.name}")
        elif part.name.endswith(".py"):
            yield f"{prefix}/{part.name}", part.read_bytes()
