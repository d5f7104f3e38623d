"""A folder to copy: to a device (model, program, requirements, service, README), or
to Frigate (model, label map, configuration).

The program is this very package as one file (a zipapp, PEP 441), so the device runs
the code that measured the model. The same sources and model give the same bytes. A
file without a card is packed with its labels and with the options that it needs in the
command. The packed command is run once before anything is written.

Frigate 0.17 reads ``model.tflite`` and ``labelmap.txt`` from
``/config/model_cache/NAME/``. It cuts a part out of the frame, stretches it to 224 x
224 with OpenCV, gives it to the first input as uint8 RGB, and divides the first output
by its sum. So that output has to be the probabilities, and their zero point 0. It knows
no `unknown`: familiarity, the second output, is not read there.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shlex
import zipfile
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import TYPE_CHECKING

from edge.command import foreign_options
from edge.errors import EdgegraftError, ModelError
from edge.files import edgegraft_version, write_atomic
from edge.model_file import ModelFile
from edge.run_folder import find_model

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from edge.card import ModelCard
    from edge.foreign import ForeignOptions
    from edge.region import Region

MODEL, PROGRAM, LABELS = "model.tflite", "edge.pyz", "labels.txt"
REQUIREMENTS, README = "requirements.txt", "README.md"
CAMERA, UNIT, INSTALL = "requirements-camera.txt", "edgegraft.service", "install.sh"
LABEL_MAP, CONFIG = "labelmap.txt", "frigate.yml"
TARGETS = ("device", "frigate")
_SIDE = 224  # pixels of an input; Frigate has no other
_NOT_PACKED = ("edge/classify/ray.py",)  # a cluster has the checkout
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip's first day: equal sources, equal bytes
_MAIN = """import sys
try:
    from edge.cli import main
    code = main(prog="python edge.pyz")
except KeyboardInterrupt:  # a Pi takes a second to start
    code = 130
sys.exit(code)
"""
# LiteRT and pillow-heif (for iPhone photos) have no wheel for 32-bit Arm;
# tflite-runtime 2.14 was built against numpy 1. Where neither interpreter has one
# (Python 3.12 there, a Pi Zero), pip must fail and say so.
_NEEDS = """numpy>=1.23.2
pillow>=9.4
pillow-heif>=0.16; platform_machine != "armv7l" and platform_machine != "armv6l"
ai-edge-litert>=1.3; platform_machine != "armv7l" and platform_machine != "armv6l"
tflite-runtime==2.14.0; platform_machine == "armv7l" or platform_machine == "armv6l"
numpy<2; platform_machine == "armv7l" or platform_machine == "armv6l"
"""
# OpenCV publishes no wheel for 32-bit Arm: there it is Debian's python3-opencv.
_CAMERA = """-r requirements.txt
paho-mqtt>=2
opencv-python-headless>=4.8; platform_machine not in "armv7l armv6l"
"""
_GUIDE = """# {name} ({variant}, {size:.1f} MB): {labels}
Copy this folder to the device (Python 3.10 to 3.13), then in it:

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python edge.pyz doctor                      # is everything there?
    venv/bin/python edge.pyz classify {command} photo.jpg

A 32-bit system (`getconf LONG_BIT`) needs Python 3.11 or older; if `uname -m` says
aarch64 there: venv/bin/pip install pillow 'numpy<2' tflite-runtime==2.14.0
Also: `serve`, `evaluate`, `bench`, `info`, `--help`; with requirements-camera.txt
installed: `camera {command} 0`.

The camera as a service, which starts with the device (first see what it would do):

    sh install.sh --dry-run && sudo sh install.sh
    sudo sh install.sh --uninstall

Its answers: `journalctl -fu edgegraft`. /etc/edgegraft.env may hold what to add to the
command, as EDGEGRAFT_OPTIONS=--motion --mqtt mqtt://cam@homeassistant.local/door and
EDGEGRAFT_MQTT_PASSWORD=... The Pi camera needs `sudo apt install python3-picamera2` and
the source picamera in EDGEGRAFT_OPTIONS; on a 32-bit system, python3-opencv too.
"""
_INSTALL = """#!/bin/sh
# The camera as a service: sudo sh install.sh [--dry-run] [--uninstall]
set -eu
cd "$(dirname "$0")"
to=/opt/edgegraft unit=/etc/systemd/system/edgegraft.service dry='' out=''
for word in "$@"; do case "$word" in
  --dry-run) dry=1 ;; --uninstall) out=1 ;;
  *) echo "expected --dry-run or --uninstall, got $word" >&2; exit 2 ;;
esac; done
run() { echo "+ $*"; [ "$dry" ] || "$@"; }
[ "$dry" ] || [ "$(id -u)" = 0 ] || { echo "expected root: sudo sh $0" >&2; exit 2; }
if [ "$out" ]; then
  run systemctl disable --now edgegraft; run rm -rf "$to" "$unit"
  run systemctl daemon-reload; exit
fi
run mkdir -p "$to"
[ "$PWD" = "$to" ] || run cp ./*.tflite ./*.pyz ./*.txt "$to"
run python3 -m venv --system-site-packages "$to/venv"
run "$to/venv/bin/pip" install -r "$to/requirements-camera.txt"
run "$to/venv/bin/python" "$to/edge.pyz" doctor
run cp edgegraft.service "$unit"
run systemctl daemon-reload
run systemctl enable --now edgegraft
"""
# Type=notify and the watchdog: edge/camera/service.py reports to systemd that
# frames are handled.
_SERVICE = """# install.sh puts it in place; journalctl -fu edgegraft shows the answers
[Unit]
Description=edgegraft: what the camera shows
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
WorkingDirectory=/opt/edgegraft
EnvironmentFile=-/etc/edgegraft.env
ExecStart=/opt/edgegraft/venv/bin/python edge.pyz camera $command --json --events \
  --fps 5 --hold 1 --wait $EDGEGRAFT_OPTIONS
Restart=always
RestartSec=5
WatchdogSec=60
CacheDirectory=edgegraft
# Nothing but the cameras, an accelerator on USB and the network; all files read-only
DynamicUser=yes
SupplementaryGroups=video
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
CapabilityBoundingSet=
DevicePolicy=closed
DeviceAllow=char-video4linux rw
DeviceAllow=char-media rw
DeviceAllow=char-dma_heap rw
DeviceAllow=char-usb_device rw
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0077

[Install]
WantedBy=multi-user.target
"""
_FRIGATE_CONFIG = """\
# Copy model.tflite and labelmap.txt to /config/model_cache/{name}/,
# add this to Frigate's config.yml, with your camera in place of CAMERA, restart.
# The state then comes over MQTT: frigate/CAMERA/classification/{name}
# Frigate stretches without antialiasing and has no "unknown": what edgegraft measured
# holds nearly, not exactly.
classification:
  custom:
    {name}:
      enabled: true
      threshold: 0.8
      state_config:
        motion: true
        interval: 60
        cameras:
          CAMERA:
            crop: [{crop}]  # left, top, right, bottom: shares of the frame
"""


def run(args: argparse.Namespace) -> int:
    """The verb ``pack``."""
    model, reason = find_model(args.model, args.variant)
    paths = pack(
        model,
        args.output,
        overwrite=args.overwrite,
        labels=args.labels,
        foreign=foreign_options(args),
        region=args.region,
        target=args.target,
    )
    if reason:
        print(reason)
    for path in paths:
        print(f"{os.path.getsize(path):10,}  {path}")
    if args.target != TARGETS[0]:
        print(f"next: read {os.path.join(args.output, CONFIG)}")
        return 0
    folder = os.path.basename(os.path.abspath(args.output))
    print(f"next: scp -r {shlex.quote(args.output)} USER@raspberrypi.local:")
    print(f"then, on the device: {folder}/{README}")
    return 0


def pack(
    model: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    labels: str | None = None,
    foreign: ForeignOptions | None = None,
    region: Region | None = None,
    target: str = TARGETS[0],
) -> list[str]:
    """Write the folder for a device, or for frigate; the paths written.

    `labels` and `foreign` are for a file without a card, `region` is used in place of
    the model's own. ModelError as `contents`, and when the packed command does not run
    here; EdgegraftError when a file exists already and `overwrite` is not given.
    """
    if target == TARGETS[0]:
        files = contents(model, labels=labels, foreign=foreign, region=region)
    else:
        files = _frigate_contents(ModelFile.read(model).checked(), region)
    folder = os.fspath(folder)
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise EdgegraftError(f"{folder}: expected a folder to write to, got a file")
    paths = {os.path.join(folder, name): content for name, content in files.items()}
    existing = [path for path in paths if os.path.exists(path)]
    if existing and not overwrite:
        raise EdgegraftError(
            f"{existing[0]}: is there already; give --overwrite or another -o DIR"
        )
    if PROGRAM in files:
        _run_packed(os.fspath(model), files, foreign)
    for path, content in paths.items():
        write_atomic(path, content)
    return list(paths)


def _run_packed(
    model: str, files: dict[str, bytes], foreign: ForeignOptions | None
) -> None:
    """Run the packed command on a grey photo; ModelError with what it says."""
    import subprocess
    import sys
    import tempfile

    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        for name in (MODEL, PROGRAM, LABELS):
            if name in files:
                write_atomic(os.path.join(folder, name), files[name])
        Image.new("RGB", (64, 64), (128, 128, 128)).save(os.path.join(folder, "p.png"))
        options = foreign.arguments() if foreign else []
        result = subprocess.run(
            [sys.executable, PROGRAM, "classify", MODEL, *options, "p.png"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"exit {result.returncode}"]
        reason = lines[-1].removeprefix("edgegraft: error: ")
        raise ModelError(
            f"{model}: cannot be packed: {reason.removeprefix(f'{MODEL}: ')}"
        )


def contents(
    model: str | os.PathLike[str],
    *,
    labels: str | Sequence[str] | None = None,
    foreign: ForeignOptions | None = None,
    region: Region | None = None,
) -> dict[str, bytes]:
    """Name and bytes of every file for a device. `labels`: names, or a file of them.

    ModelError for a model that is damaged, or without labels inside, beside or given.
    """
    file = ModelFile.read(model).checked()
    names, labels_file = file.labels, {}
    if labels is None and names is None:
        from edge.foreign import labels_beside

        labels = labels_beside(model)
    if labels is not None:
        from edge.tflite import read_label_file

        names = read_label_file(labels) if isinstance(labels, str) else tuple(labels)
        labels_file = {LABELS: ("\n".join(names) + "\n").encode()}
    if not names:
        raise ModelError(
            f"{file.where}: expected a model with labels inside, got one without; "
            "give them with --labels FILE"
        )
    card = file.card
    options = foreign.arguments() if foreign else []
    if labels_file and file.labels:
        options.append(f"--labels={LABELS}")
    if region is not None:
        from edge.region import region_text

        options.append(f"--region={region_text(region)}")
    command = shlex.join([MODEL, *options])
    guide = _GUIDE.format(
        name=card.name if card else os.path.basename(model),
        variant=card.variant if card else "foreign file",
        size=len(file.content) / 1e6,
        labels=", ".join(names[:6]) + (", ..." if len(names) > 6 else ""),
        command=command,
    )
    return {
        MODEL: file.content,
        **labels_file,
        PROGRAM: program(),
        REQUIREMENTS: _NEEDS.encode(),
        CAMERA: _CAMERA.encode(),
        INSTALL: _INSTALL.encode(),
        UNIT: _SERVICE.replace("$command", command).encode(),
        README: guide.encode(),
    }


def _frigate_contents(file: ModelFile, region: Region | None) -> dict[str, bytes]:
    """Name and bytes of every file for Frigate; ModelError for a model that it cannot
    feed."""
    card = file.card
    if card is None:
        raise ModelError(
            f"{file.where}: expected a model of edgegraft for Frigate, got a foreign "
            "file"
        )
    _refuse_unfit(file, card)
    if any(label != label.strip() for label in card.labels):
        raise ModelError(f"{file.where}: expected labels without spaces around them")
    region = region or card.input.region or (0.0, 0.0, 1.0, 1.0)
    if max(region) > 1:
        raise ModelError(
            "--region: expected shares from 0 to 1 for Frigate, got pixels"
        )
    x, y, width, height = region
    crop = ", ".join(f"{edge:.4g}" for edge in (x, y, x + width, y + height))
    name = re.sub(r"[^a-z0-9_]+", "_", card.name.lower()).strip("_") or "model"
    return {
        MODEL: file.content,
        LABEL_MAP: ("\n".join(card.labels) + "\n").encode(),
        CONFIG: _FRIGATE_CONFIG.format(name=name, crop=crop).encode(),
    }


def _refuse_unfit(file: ModelFile, card: ModelCard) -> None:
    import numpy as np

    recipe = card.input
    if (recipe.width, recipe.height, recipe.resize) != (_SIDE, _SIDE, "stretch"):
        raise ModelError(
            f"{file.where}: expected an input of {_SIDE} x {_SIDE}, stretched, for "
            f"Frigate, got {recipe.width} x {recipe.height}, {recipe.resize}; build "
            f"with --size {_SIDE} --resize stretch"
        )
    _, interpreter = file.open()
    (image,) = interpreter.get_input_details()
    scores = interpreter.get_output_details()[0]
    input_dtype, output_dtype = np.dtype(image["dtype"]), np.dtype(scores["dtype"])
    shape = [int(side) for side in scores["shape"]]
    if (
        input_dtype != np.uint8
        or output_dtype not in (np.uint8, np.float32)
        or scores["quantization"][1] != 0  # the zero point
        or shape != [1, len(card.labels)]
    ):
        raise ModelError(
            f"{file.where}: expected uint8 pixels in and {len(card.labels)} "
            f"probabilities as first output for Frigate, got {input_dtype} in and "
            f"{output_dtype} {shape} out; pack the int8 file (--variant int8)"
        )


def zipped(
    model: str | os.PathLike[str],
    folder: str,
    *,
    labels: str | Sequence[str] | None = None,
    foreign: ForeignOptions | None = None,
) -> bytes:
    """The same as one ZIP, in which all lies in `folder`. ModelError as `contents`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents(model, labels=labels, foreign=foreign).items():
            entry = _entry(f"{folder}/{name}")
            entry.external_attr = 0o644 << 16  # unzip would let no user read it
            archive.writestr(entry, content)
    return file.getvalue()


def program() -> bytes:
    """This package as a zipapp: ``python edge.pyz VERB`` and ``-m edge`` in it."""
    file = io.BytesIO(b"#!/usr/bin/env python3\n")
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry("__main__.py"), _MAIN)
        version = edgegraft_version() or "0"
        metadata = f"Metadata-Version: 2.1\nName: edgegraft\nVersion: {version}\n"
        archive.writestr(_entry("edgegraft-packed.dist-info/METADATA"), metadata)
        for name, source in sorted(_sources(resources.files("edge"), "edge")):
            if name not in _NOT_PACKED:
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
