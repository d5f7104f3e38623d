"""A package of npm for a test: fetched once, checked against its pinned digest."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from pathlib import Path


class Unavailable(Exception):
    """npm or the package cannot be had here, and why."""


def package(name: str, sha512: str, folder: Path) -> Path:
    """The unpacked package NAME@VERSION in `folder`; Unavailable, or ValueError where
    its digest is another."""
    stamp = folder / f"{sha512[:12].replace('/', '_')}.whole"
    if not stamp.exists():
        if shutil.which("npm") is None:
            raise Unavailable("no npm here")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder), name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no output"]
            raise Unavailable(f"npm cannot fetch {name}: {lines[-1]}")
        (archive,) = folder.glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest())
        if digest.decode() != sha512:
            raise ValueError(
                f"expected another {name}, its sha512 is {digest.decode()}"
            )
        shutil.unpack_archive(archive, folder, "gztar", filter="data")
        stamp.touch()
    return folder / "package"
