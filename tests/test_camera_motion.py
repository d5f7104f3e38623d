"""When the model looks: motion with hysteresis, changes of light, the heartbeat."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from edge.camera import frames
from edge.camera.frames import MotionGate
from edge.camera.sources import Picture
from edge.cli import main
from tests.camera_room import Fake, picture
from tests.edge_models import network, save, with_card

HIGH, WIDE = 120, 160
NOISE = np.random.default_rng(0).normal(0, 4, (7, HIGH, WIDE, 3))


def wall(
    now: float, light: float = 0.0, box: tuple[int, int, int] = (0, 0, 0)
) -> Picture:
    """A grey wall with a camera's noise; box: left, top and side of what is there."""
    left, top, side = box
    made = NOISE[int(now * 5) % len(NOISE)] + (110 + light)
    made[top : top + side, left : left + side] += 60
    return made.clip(0, 255).astype(np.uint8)


def looks(scene: Callable[[float], Picture], seconds: float) -> list[float]:
    """The times at which a gate looks, five frames a second."""
    gate = MotionGate()
    times = [number / 5 for number in range(int(5 * seconds))]
    return [now for now in times if gate.look(scene(now), now)]


def test_noise_and_a_change_of_light_are_no_motion() -> None:
    still = looks(lambda now: wall(now), 20)
    assert still and max(still) <= 2.2  # the first frame, and until calm
    light = looks(lambda now: wall(now, light=20 if now > 5 else 0), 12)
    assert max(light) <= 2.2
    wanders = looks(lambda now: wall(now, light=2 * now), 20)
    assert max(wanders) <= 2.2


def test_what_comes_is_looked_at_until_it_is_calm_and_known() -> None:
    def parcel(now: float) -> Picture:
        return wall(now, box=(50, 50, 30 if now >= 10 else 0))

    seen = [now for now in looks(parcel, 60) if now > 3]
    assert seen[0] == 10.0 and seen[-1] < 45  # it stays, and becomes background
    assert np.allclose(np.diff(seen), 0.2)  # one stretch, without gaps


def test_hysteresis_keeps_one_stretch_where_motion_comes_and_goes() -> None:
    def waves(now: float) -> Picture:
        on = now >= 5 and int(now * 5) % 3 == 0  # every third frame only
        return wall(now, box=(int(10 * now), 25, 24 if on else 0))

    seen = [now for now in looks(waves, 12) if now > 3]
    assert seen[0] <= 5.5 and len(seen) >= 0.95 * 5 * (12 - seen[0])


def test_a_small_thing_outside_the_limit_is_ignored() -> None:
    tiny = looks(lambda now: wall(now, box=(75, 50, 7 if now > 5 else 0)), 12)
    assert max(tiny) <= 2.2  # 4 of 1,200 cells


def test_a_day_without_motion_has_a_heartbeat() -> None:
    still = picture("red")
    gate = MotionGate(heartbeat=60)
    seen = [now for now in range(0, 86_400, 20) if gate.look(still, float(now))]
    gaps = np.diff(seen)
    assert len(seen) >= 86_400 / 80 and gaps.max() <= 80


@pytest.mark.slow  # two runs of three seconds
def test_the_camera_looks_only_in_the_region_and_only_at_motion(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = save(tmp_path_factory.mktemp("m") / "m.tflite", with_card(network()))

    class Half(Fake):
        """Red on the left; on the right, all colours in turn."""

        turns = 0

        def retrieve(self) -> Picture:
            self.turns += 1
            half = picture("red")
            half[:, 20:] = picture(["red", "green", "blue"][self.turns % 3])[:, 20:]
            return half

    def counted(*more: str) -> int:
        source = Half(["red"], pause=0.01)
        monkeypatch.setattr(frames, "find", lambda word, size, live: source)
        argv = ["camera", model, "0", "--json", "--seconds", "3.2", "--smooth", "0"]
        assert main([*argv, "--fps", "20", *more]) == 0
        return len(capsys.readouterr().out.splitlines())

    moving = counted("--motion", "--region", "0.5,0,0.5,1")
    still = counted("--motion", "--region", "0,0,0.5,1")
    assert moving > 1.3 * still and still >= 20  # until it has been calm for 2 s


def test_a_heartbeat_that_finds_another_label_looks_on(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A change too slow to be motion is held and reported all the same."""
    model = save(tmp_path_factory.mktemp("m") / "m.tflite", with_card(network()))

    class Slow(MotionGate):
        def look(self, frame: Picture, now: float) -> bool:
            self._background = None if self._background is None else _own(frame)
            return super().look(frame, now)

    from edge.camera import cli
    from edge.camera.frames import _cells as _own

    monkeypatch.setattr(cli, "MotionGate", Slow)
    source = Fake(["red"] * 30 + ["blue"], pause=0.02)
    monkeypatch.setattr(frames, "find", lambda word, size, live: source)
    argv = ["camera", model, "0", "--json", "--events", "--smooth", "0", "--fps", "20"]
    argv += ["--motion", "--heartbeat", "0.5", "--hold", "0.3", "--seconds", "3"]
    assert main(argv) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["label"] for row in rows] == ["red", "blue"]
