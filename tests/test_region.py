"""The region of a model: one crop in training, in `classify` and at the camera."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data import capture
from data.source import region_of, scan
from edge.camera import frames as camera
from edge.card import ModelCard
from edge.classifier import Classifier
from edge.cli import main
from edge.errors import EdgegraftError, PhotoError
from edge.preprocess import InputRecipe, load_pixels, open_photo
from edge.region import as_fractions, parse_region, region_box, region_text
from finetune.settings import Settings
from tests.camera_room import Fake
from tests.edge_models import SIDE, card, network, save, with_card
from tests.test_data_capture import frame
from tests.test_edge_preprocess import ORIENTATION, STORED_AS, coded

REGION = (0.5, 0.25, 0.25, 0.5)


def scene(wide: int = 240, high: int = 160) -> Image.Image:
    """Different everywhere, and smooth, so that JPEG keeps it."""
    x, y = np.meshgrid(np.linspace(0, 255, wide), np.linspace(0, 255, high))
    return Image.fromarray(np.stack([x, y, 255 - x], 2).astype(np.uint8))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_region_is_of_the_upright_photo(turn: int, kind: str) -> None:
    stored = scene()
    if STORED_AS[turn] is not None:
        stored = stored.transpose(STORED_AS[turn])
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    photo = coded(stored, kind, exif=exif)
    want = np.asarray(scene().crop((120, 40, 180, 120))).astype(int)
    for region in (REGION, (120.0, 40.0, 60.0, 80.0)):
        got = np.asarray(open_photo(photo, region=region)).astype(int)
        assert got.shape == want.shape and np.abs(got - want).mean() < 3
    recipe = InputRecipe(12, 12, region=REGION)
    small = load_pixels(photo, recipe).astype(int)
    cut = load_pixels(scene().crop((120, 40, 180, 120)), replace(recipe, region=None))
    assert np.abs(small - cut).mean() < 3


def test_a_large_jpeg_is_reduced_only_as_far_as_its_region_allows() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (100, 150, 3), np.uint8))
    large = noise.resize((3000, 2000), Image.Resampling.BICUBIC)
    recipe = InputRecipe(96, 96, region=(0.4, 0.4, 0.1, 0.2))
    jpeg = load_pixels(coded(large, "JPEG", quality=95), recipe).astype(int)
    full = load_pixels(large.crop((1200, 800, 1500, 1200)), InputRecipe(96, 96))
    assert np.abs(jpeg - full).mean() < 3


def test_transparent_and_deep_photos_have_a_region_too() -> None:
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (20, 0, 40, 40))
    right = InputRecipe(4, 4, region=(0.5, 0, 0.5, 1))
    left = replace(right, region=(0, 0, 0.5, 1))
    assert (load_pixels(coded(clear, "PNG"), right) == (0, 0, 255)).all()
    assert (load_pixels(coded(clear, "PNG"), left) == 255).all()
    deep = np.zeros((40, 40), np.int32)
    deep[:, :20], deep[0, 39] = 100, 70_000  # the white is of the whole photo
    photo = coded(Image.fromarray(deep), "TIFF")
    assert load_pixels(photo, left).max() <= 1


def test_a_region_outside_the_photo_is_named() -> None:
    recipe = InputRecipe(8, 8, region=(100, 0, 200, 50))
    with pytest.raises(PhotoError, match="region 100,0,200,50: expected a part of the"):
        load_pixels(scene(), recipe)
    for bad in ((0, 0, 0, 1), (0.5, 0, 0.6, 1), (0, 0, 1), (-1, 0, 5, 5), "0,0,1,1"):
        with pytest.raises(EdgegraftError, match="region: expected x, y, width"):
            InputRecipe(8, 8, region=bad)  # type: ignore[arg-type]
    for text in ("1,2,3", "a,b,c,d", "0.5,0.5,0.6,0.2", "0,0,nan,1"):
        with pytest.raises(EdgegraftError, match="expected X,Y,WIDTH,HEIGHT"):
            parse_region(text)
    assert region_box((0, 0, 1e-4, 1e-4), (40, 30)) == (0, 0, 1, 1)


@pytest.mark.parametrize("size", [(640, 480), (641, 479), (1920, 1080), (7, 3)])
def test_pixels_become_shares_of_the_same_box(size: tuple[int, int]) -> None:
    wide, high = size
    for region in ((2.0, 1.0, wide - 2.0, high - 1.0), (1.0, 0.0, 3.0, 2.0)):
        shares = as_fractions(region, size)
        assert region_box(shares, size) == region_box(region, size)
        assert parse_region(region_text(shares)) == shares


def test_a_card_keeps_its_region_and_old_readers_are_stopped() -> None:
    with_region = card(input=InputRecipe(8, 8, region=REGION))
    assert ModelCard.from_json(with_region.to_json()) == with_region
    assert json.loads(with_region.to_json())["schema"] == 2
    assert json.loads(card().to_json())["schema"] == 1
    assert ModelCard.from_json(card().to_json()).input.region is None
    damaged = json.loads(with_region.to_json())
    damaged["input"]["region"] = [0, 0, 2]
    with pytest.raises(EdgegraftError, match="model card: region: expected x, y"):
        ModelCard.from_json(json.dumps(damaged))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    recipe = InputRecipe(SIDE, SIDE, region=(0.5, 0, 0.5, 1))
    folder = tmp_path_factory.mktemp("model")
    return save(folder / "m.tflite", with_card(network(), input=recipe))


def red_and_blue() -> Image.Image:
    photo = Image.new("RGB", (40, 30), (255, 0, 0))
    photo.paste((0, 0, 255), (20, 0, 40, 30))
    return photo


def test_classify_and_camera_use_the_models_region(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(tmp_path / "p.png")
    red_and_blue().save(path)
    source = Fake(["red"])
    picture = np.asarray(red_and_blue())
    monkeypatch.setattr(source, "retrieve", lambda: picture)
    monkeypatch.setattr(camera, "find", lambda word, size, live: source)
    shifted = ["--region", "0,0,0.5,1"]
    for more, label, note in (
        ([], "blue", ""),
        (shifted, "red", "region 0,0,0.5,1 in place of the model's 0.5,0,0.5,1\n"),
        (["--region", "0,0,0.2,1"], "red", "of another size: what was measured may"),
    ):
        assert main(["classify", model, path, "--json", *more]) == 0
        out, err = capsys.readouterr()
        one = json.loads(out)["photos"][0]
        assert one["label"] == label and note in err and bool(err) == bool(note)
        save_to = str(tmp_path / f"uncertain{more}".replace(" ", ""))
        argv = ["camera", model, "--json", "--max-frames", "1", *more]
        argv += ["--save-uncertain", save_to, "--uncertain-below", "1"]
        assert main(argv) == 0
        out, err = capsys.readouterr()
        frame = json.loads(out)
        assert frame["label"] == label and note in err
        assert frame["probability"] == pytest.approx(one["probability"], abs=1e-5)
        (kept,) = Path(save_to).iterdir()  # whole, since training cuts it out again
        assert Image.open(kept).size == (40, 30)
    assert main(["info", model]) == 0
    assert "0.5,0,0.5,1 (x, y, width, height)" in capsys.readouterr().out


def test_a_captured_region_reaches_the_recipe(tmp_path: Path) -> None:
    region = (40.0, 30.0, 80.0, 60.0)  # of frames of 160 x 120
    for number, label in enumerate(("cat", "dog")):
        frames = [frame(10 * number + k) for k in range(2)]
        capture.collect(frames, tmp_path, label, session=f"s{number}", region=region)
    for place in (tmp_path, tmp_path / capture.LIST):
        folder = scan(place)
        assert folder.regions == ("0.25,0.25,0.5,0.5",) and len(folder.photos) == 4
        assert region_of(folder, None) == "0.25,0.25,0.5,0.5"
        assert region_of(folder, "0,0,1,0.5") == "0,0,1,0.5"
        assert region_of(folder, "40,30,80,60") == "0.25,0.25,0.5,0.5"
    assert Image.open(folder.photos[0].path).size == (160, 120)
    settings = Settings(region=region_of(folder, None))
    assert settings.recipe.region == (0.25, 0.25, 0.5, 0.5)
    assert Settings.from_dict(settings.to_dict()) == settings
    with pytest.raises(EdgegraftError, match=r"--region: expected 0\.25,"):
        capture.collect([frame(3)], tmp_path, "cat")
    smeared = [np.where(np.arange(160)[None, :, None] < 80, frame(1, blur=8), frame(1))]
    left = capture.collect(
        [np.asarray(smeared[0], np.uint8)],
        tmp_path / "other",
        "cat",
        region=(0, 0, 80, 120),
    )
    assert left.blurred == 1 and left.kept == 0  # sharp only outside the region


def test_several_regions_or_sizes_ask_for_one(tmp_path: Path) -> None:
    folder = SimpleNamespace(regions=("", "0,0,0.5,1"), root=tmp_path, photos=())
    with pytest.raises(EdgegraftError, match=r"got the whole and 0,0,0\.5,1; say"):
        region_of(folder, None)  # type: ignore[arg-type]
    for label, size in (("a", 20), ("b", 30)):
        (tmp_path / label).mkdir()
        for number in range(2):
            Image.new("RGB", (size, 20)).save(tmp_path / label / f"{number}.png")
    with pytest.raises(EdgegraftError, match=r"got 20 x 20 .*30 x 20"):
        region_of(scan(tmp_path), "0,0,10,10")
    with pytest.raises(EdgegraftError, match="--region: expected X,Y,WIDTH,HEIGHT"):
        Settings(region="all")


def test_the_page_draws_and_passes_the_region(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    testing = pytest.importorskip("streamlit.testing.v1", reason="needs streamlit")
    from streamlit_app import answer

    shown = Image.open(
        io.BytesIO(answer.with_box(coded(scene(), "PNG"), (0.5, 0, 1, 1)))
    )
    inside, outside = np.asarray(shown)[:, 121:], np.asarray(shown)[:, :119]
    assert shown.size == (240, 160) and inside.mean() > 2 * outside.mean()

    def script() -> None:
        import streamlit as st

        from streamlit_app.training import Uploads
        from streamlit_app.views.train import choose_region

        st.text(str(choose_region(Uploads(st.session_state["folder"]))))

    page = testing.AppTest.from_function(script)
    page.session_state["folder"] = tmp_path
    assert page.run().text[0].value == "None"
    page.slider[0].set_range(25, 75)
    page.slider[1].set_range(10, 100)
    region = page.run().text[0].value
    assert parse_region(region) == (0.25, 0.1, 0.5, 0.9)


def test_a_foreign_classifier_takes_a_region_too() -> None:
    classifier = Classifier(with_card(network()), region=(0.5, 0, 0.5, 1))
    assert classifier.classify(red_and_blue()).label == "blue"
    assert classifier.trained_region is None
