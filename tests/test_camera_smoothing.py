"""Smoothing over frames, and the uncertain ones that are kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.camera import output
from edge.camera.output import TemporalSmoother
from edge.classifier import FAMILIARITY, PROBABILITIES, Prediction
from tests.camera_room import picture


def to_prediction(probabilities: Any, familiarity: float | None) -> Prediction:
    label = "ab"[int(np.argmax(probabilities))]
    known = familiarity is None or familiarity > 0.5
    value = float(np.max(probabilities))
    shown = label if known else "unknown"
    return Prediction(shown, value, ((label, value),), familiarity, known)


def out_of(a: float, familiarity: float | None = None) -> dict[str, Any]:
    out = {PROBABILITIES: np.array([[a, 1 - a]], np.float32)}
    if familiarity is not None:
        out[FAMILIARITY] = np.array([familiarity], np.float32)
    return out


def test_the_average_follows_time_not_frames() -> None:
    """After one time constant 1 - 1/e of a step is there, at any frame rate."""
    for fps in (5, 50):
        smoother = TemporalSmoother(to_prediction, seconds=1.0)
        smoother.update(out_of(1.0), 0.0)
        for frame in range(1, fps + 1):
            prediction, _, _ = smoother.update(out_of(0.0), frame / fps)
        assert prediction.label == "b"
        assert prediction.probability == pytest.approx(1 - np.exp(-1), abs=1e-4)


def test_flicker_does_not_change_the_label() -> None:
    smoother = TemporalSmoother(to_prediction, hold=0.5)
    labels = []
    for step, a in enumerate([1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1]):
        _, label, changed = smoother.update(out_of(a), step / 10)
        labels.append(label + "!" * changed)
    assert labels == ["a!", *"aaaaaaaaa", "b!", "b", "b"]


def test_familiarity_is_averaged_too() -> None:
    smoother = TemporalSmoother(to_prediction, seconds=1.0)
    assert smoother.update(out_of(1.0, 0.9), 0.0)[1] == "a"
    prediction, label, _ = smoother.update(out_of(1.0, 0.0), 0.2)
    assert prediction.known and label == "a"
    prediction, label, changed = smoother.update(out_of(1.0, 0.0), 3.0)
    assert not prediction.known and (label, changed) == ("unknown", True)


def test_uncertain_frames_fill_a_bounded_folder(tmp_path: Path) -> None:
    folder = tmp_path / "uncertain"
    folder.mkdir()
    (folder / "mine.jpg").write_bytes(b"x" * 50_000)
    (folder / "uncertain-notes.txt").write_text("mine")
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    keep = output.UncertainFrames(str(folder), 0.6, 30_000, print)
    low = Prediction("cat/dog", 0.4, (("cat/dog", 0.4),), None, True)
    certain = Prediction("cat", 0.9, (("cat", 0.9),), None, True)
    unknown = Prediction("unknown", 0.99, (("cat", 0.99),), 0.1, False)
    keep.save_if_uncertain(noise, certain, 0.0)
    assert keep.saved == 0
    keep.save_if_uncertain(noise, low, 1.0)
    keep.save_if_uncertain(noise, low, 1.5)  # too soon after the other
    keep.save_if_uncertain(noise, unknown, 2.5)
    assert keep.saved == 2
    for second in range(4, 14):
        keep.save_if_uncertain(noise, low, second)
        time.sleep(0.002)
    ours = sorted(folder.glob("uncertain-*.jpg"))
    assert keep.saved == 12 and 1 < len(ours) < 12
    assert sum(path.stat().st_size for path in ours) <= 30_000
    assert "-cat_dog-0.40" in ours[-1].name
    assert (folder / "mine.jpg").exists() and (folder / "uncertain-notes.txt").exists()
    # the next process counts what is there
    smaller = output.UncertainFrames(str(folder), 0.6, 10_000, print)
    left = list(folder.glob("uncertain-*.jpg"))
    assert sum(path.stat().st_size for path in left) <= 10_000
    assert smaller.saved == 0


def test_a_full_disk_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    keep = output.UncertainFrames(str(tmp_path), 0.6, 10_000, notes.append)
    low = Prediction("cat", 0.4, (("cat", 0.4),), None, True)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(output.os, "replace", full)
        keep.save_if_uncertain(picture("red"), low, 0.0)
        keep.save_if_uncertain(picture("red"), low, 5.0)  # not tried again so soon
    assert notes == [f"{tmp_path}: No space left on device; frame not saved"]
    assert list(tmp_path.iterdir()) == []
    keep.save_if_uncertain(picture("red"), low, 100.0)
    assert keep.saved == 1
