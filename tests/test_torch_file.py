"""PyTorch checkpoints: both formats read, nothing run, everything else refused."""

from __future__ import annotations

import io
import os
import pickle
import random
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbones import torch_file
from edge.errors import EdgegraftError
from tests.backbones_room import write_checkpoint

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "conv.weight": RANDOM.normal(size=(3, 3, 2, 4)).astype("f4").transpose(3, 2, 0, 1),
    "bn.weight": RANDOM.normal(size=5).astype("f4"),
    "bn.num_batches_tracked": np.array(7, "i8"),
    "half": RANDOM.normal(size=(2, 2)).astype("f2"),
    "empty": np.zeros((0, 3), "f4"),
}


@pytest.mark.parametrize("zipped", [False, True])
def test_tensors_come_back_as_they_were(zipped: bool, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "net.pth", ARRAYS, zipped=zipped)
    found = torch_file.read(path)
    assert list(found) == list(ARRAYS)
    for name, wanted in ARRAYS.items():
        assert found[name].dtype == wanted.dtype
        np.testing.assert_array_equal(found[name], wanted)
    assert found["conv.weight"].strides == ARRAYS["conv.weight"].strides
    assert "torch" not in sys.modules


@pytest.mark.parametrize("zipped", [False, True])
def test_of_a_training_checkpoint_the_state_dict_is_read(
    zipped: bool, tmp_path: Path
) -> None:
    path = write_checkpoint(tmp_path / "run.pth", ARRAYS, zipped=zipped, epoch=3)
    assert list(torch_file.read(path)) == list(ARRAYS)


class _Runs:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_call_in_the_pickle_is_refused_and_not_made(
    zipped: bool, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    path = write_checkpoint(tmp_path / "bad.pth", {"w": _Runs(trap)}, zipped=zipped)
    with pytest.raises(EdgegraftError, match=r"got the name '\w+ mkdir'") as caught:
        torch_file.read(path)
    assert "\n" not in str(caught.value) and not trap.exists()


def _pickles(*values: Any) -> bytes:
    return b"".join(pickle.dumps(value, 2) for value in values)


def _zip(content: bytes, how: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as archive:
        archive.writestr("archive/data.pkl", content)
    return stream.getvalue()


MAGIC = 0x1950A86A20F9469CFC6C
# as a key: a tuple of 2**64 empty ones, whose hash would never be done
LAUGHS = b"\x80\x02}" + b")q\x00" + b"h\x00\x86q\x00" * 64 + b"K\x00s."


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "a damaged file"),
        (b"not a checkpoint", "a damaged file"),
        (_pickles({"w": 1}), "no magic number"),
        (_pickles(MAGIC, 1002), "another version"),
        (_pickles(MAGIC, 1001, {"little_endian": False}), "big-endian"),
        (_pickles(MAGIC, 1001, {"little_endian": True}, {"w": 1}), "without tensors"),
        (_pickles(MAGIC, 1001, {"little_endian": True}, [1]), "no state dict"),
        (pickle.dumps(MAGIC, 4), "the pickle opcode FRAME"),
        (LAUGHS, "a key that is no text"),
        (_zip(_pickles({})), "without tensors"),
        (_zip(_pickles({}), zipfile.ZIP_DEFLATED), "compressed members"),
        (b"PK\x03\x04 and no more", "a damaged zip"),
    ],
)
def test_other_files_are_refused_in_one_line(
    content: bytes, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(EdgegraftError, match=says) as caught:
        torch_file.read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EdgegraftError, match="No such file"):
        torch_file.read(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_files_give_tensors_or_one_line(zipped: bool, tmp_path: Path) -> None:
    """Bytes changed, cut out, doubled at random: no other error, no memory filled."""
    path = write_checkpoint(tmp_path / "net.pth", ARRAYS, zipped=zipped)
    whole, chance = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data))
            kind = chance.random()
            if kind < 0.7:
                data[at] = chance.choice((0, 1, 127, 255, chance.randrange(256)))
            elif kind < 0.85:
                del data[at : at + chance.randint(1, 40)]
            else:
                data[at:at] = data[at : at + chance.randint(1, 40)]
        path.write_bytes(data)
        try:
            found = torch_file.read(path)
        except EdgegraftError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert sum(array.size for array in found.values()) <= len(whole)
            _ = [array.copy() for array in found.values()]  # every number can be read
    assert refused > 100
