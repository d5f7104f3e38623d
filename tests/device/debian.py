"""A Debian of another processor as a folder: its python3, numpy and Pillow.

apt downloads the packages into a root of its own (so the machine's own packages and
lists are neither read nor changed) and dpkg-deb unpacks them: nothing is installed
and nobody needs to be root. QEMU's user-mode emulation runs its programs.

It does not know: what is run in it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SUITE = "bookworm"  # Raspberry Pi OS 12 is made of it; its Python is 3.11
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = ("python3-numpy", "python3-pil")
_HOST = {"x86_64": "amd64", "aarch64": "arm64"}


class CannotRun(Exception):
    """Why there can be no emulated device on this machine, and how to mend it."""


@dataclass(frozen=True)
class Arch:
    """A processor as Debian, GNU, QEMU and pip name it."""

    debian: str
    triplet: str
    qemu: str
    cpu: str
    wheel: str


ARCHES = {
    "arm64": Arch("arm64", "aarch64-linux-gnu", "aarch64", "cortex-a72", "aarch64"),
    "armhf": Arch("armhf", "arm-linux-gnueabihf", "arm", "cortex-a7", "armv7l"),
}


class Device:
    """An unpacked Debian below `folder`, ready to run its Python."""

    def __init__(self, arch: Arch, folder: Path, qemu: Path, packages: Path) -> None:
        self.arch, self.tree = arch, folder / "tree"
        self._qemu, self._packages = qemu, packages

    def command(self, *words: str | Path) -> list[str]:
        """The emulator with Debian's python3 and `words` after it."""
        libraries = self.tree / "usr" / "lib" / self.arch.triplet
        # What update-alternatives would have set up
        search = os.pathsep.join(str(libraries / name) for name in ("blas", "lapack"))
        return [
            str(self._qemu),
            *("-L", str(self.tree), "-cpu", self.arch.cpu),
            *("-E", f"LD_LIBRARY_PATH={search}"),
            *("-E", f"PYTHONPATH={self._packages}"),
            *("-E", "PYTHONDONTWRITEBYTECODE=1"),
            str(self.tree / "usr" / "bin" / "python3"),
            *(str(word) for word in words),
        ]


def prepare(arch: Arch, folder: Path, packages: Path) -> Device:
    """Download and unpack, where `folder` has not got it already."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise CannotRun(f"expected {tool}, found none: needs Debian or Ubuntu")
    if not KEYS.exists():
        raise CannotRun(f"expected {KEYS}; run: apt install debian-archive-keyring")
    qemu = _emulator(arch, folder.parent / "qemu")
    _unpacked(folder, arch.debian, PACKAGES)
    return Device(arch, folder, qemu, packages)


def _emulator(arch: Arch, folder: Path) -> Path:
    """QEMU of this machine, else Debian's, unpacked beside the trees."""
    name = f"qemu-{arch.qemu}-static"
    if found := shutil.which(name):
        return Path(found)
    host = _HOST.get(platform.machine())
    if host is None:
        raise CannotRun(f"expected {name}; run: apt install qemu-user-static")
    _unpacked(folder, host, ("qemu-user-static",), alone=True)
    return folder / "tree" / "usr" / "bin" / name


def _unpacked(
    folder: Path, architecture: str, packages: Sequence[str], *, alone: bool = False
) -> None:
    """Packages (with all they depend on, unless `alone`) below `folder`/tree."""
    stamp, wanted = folder / "packages", f"{MIRROR} {SUITE} {' '.join(packages)}\n"
    if stamp.exists() and stamp.read_text("utf-8") == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    archives = folder / "cache" / "archives"
    for part in (archives / "partial", folder / "state" / "lists" / "partial"):
        part.mkdir(parents=True)
    (folder / "state" / "status").touch()
    sources = folder / "sources.list"
    sources.write_text(f"deb [signed-by={KEYS}] {MIRROR} {SUITE} main\n", "utf-8")
    settings = folder / "apt.conf"
    settings.write_text(
        f'APT::Architecture "{architecture}";\n'
        f'APT::Architectures {{ "{architecture}"; }};\n'
        f'Dir::State "{folder}/state";\nDir::State::status "{folder}/state/status";\n'
        f'Dir::Cache "{folder}/cache";\nDir::Etc::SourceList "{sources}";\n'
        'Dir::Etc::SourceParts "-";\nAcquire::Languages "none";\n'
        'APT::Sandbox::User "";\n',
        "utf-8",
    )
    apt = ["apt-get", "-qq", "-y", "--no-install-recommends"]
    install = ["download"] if alone else ["--download-only", "install"]
    _apt([*apt, "update"], settings, archives)
    _apt([*apt, *install, *packages], settings, archives)
    found = sorted(archives.glob("*.deb"))
    if not found:
        raise CannotRun(f"expected packages for {architecture}, apt brought none")
    for package in found:
        subprocess.run(["dpkg-deb", "-x", package, folder / "tree"], check=True)
    shutil.rmtree(folder / "cache")
    stamp.write_text(wanted, "utf-8")


def _apt(command: Sequence[str], settings: Path, folder: Path) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, "APT_CONFIG": str(settings)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise CannotRun(f"{' '.join(command[:5])}: {lines[-1] if lines else 'failed'}")
