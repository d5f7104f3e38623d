"""Files without our card: fed as they were made, read as they mean it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge import tflite
from edge.classifier import Classifier
from edge.cli import main
from edge.errors import ModelError
from edge.foreign import ForeignInput, ForeignOptions, ForeignOutput
from edge.model_file import ModelFile
from edge.pack import contents
from edge.preprocess import InputRecipe, fit, load_pixels
from edge.tflite import parse_labels
from tests.edge_models import (
    FLOAT32,
    INT8,
    LABELS,
    network,
    photo,
    save,
    tflite_metadata,
    with_card,
    with_files,
)
from tests.legs import published

AXIS, VALUE = 2, 3  # kinds of label files in TFLite Metadata


def entry(shape: list[int], dtype: Any = np.float32, **more: Any) -> dict[str, Any]:
    """A tensor as interpreters describe it."""
    return {
        "name": "tensor",
        "index": 4,
        "shape": np.array(shape),
        "dtype": dtype,
        "quantization": (0.0, 0),
        **more,
    }


def fed(options: ForeignOptions, shape: list[int], **more: Any) -> ForeignInput:
    return ForeignInput(ModelFile(network()), entry(shape, **more), options)


def colours(*rgb: int) -> np.ndarray:
    return np.full((1, 2, 2, 3), rgb, np.uint8)


ZERO_TO_ONE = ForeignOptions(mean=(0.0,), std=(255.0,))


# -- what the file says of itself -----------------------------------------------------
def test_scaling_and_labels_come_from_tflite_metadata(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As TFLite Model Maker and MediaPipe Model Maker write it into float files."""
    files = [("notes.txt", VALUE, ""), ("de.txt", AXIS, "de"), ("en.txt", AXIS, "")]
    record = tflite_metadata(files, [100.0, 100.0, 50.0], [0.5, 0.5, 2.5], 0.3)
    model = with_files(
        network(FLOAT32, metadata=record),
        notes_txt="1\n2\n3\n",
        de_txt="rot\ngr\u00fcn\nblau\n",
        en_txt="\ufeffred\r\ngreen\r\nblue\r\n\r\n",
    )
    path = save(tmp_path / "m.tflite", model)
    assert ModelFile(model).labels == LABELS
    shot = photo(tmp_path / "x.png", (110, 170, 100))
    assert main(["classify", path, shot]) == 0
    assert capsys.readouterr().out.startswith("green")
    assert main(["info", path]) == 0
    out = capsys.readouterr().out
    assert "mean 100, 100, 50, std 0.5, 0.5, 2.5 (from TFLite Metadata)" in out
    assert "threshold  0.3: unknown below it (from TFLite Metadata)" in out
    assert re.search(r"resize +crop \(default\)", out)
    assert re.search(r"3 labels +red, green, blue", out)
    given = ["--mean=0", "--std=255", "--resize", "pad", "--crop", "1"]
    assert main(["info", path, "--json", *given]) == 0
    feeding = json.loads(capsys.readouterr().out)["feeding"]
    assert feeding["mean"] == [0.0] and feeding["crop"] == 1.0
    assert feeding["sources"] == {
        "resize": "--resize",
        "filter": "default",
        "crop": "--crop",
        "scaling": "--mean, --std",
    }


def test_below_the_score_threshold_of_the_metadata_it_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tflite_metadata([("en.txt", AXIS, "")], threshold=0.5)
    flat = with_files(network(metadata=record), en_txt="red\ngreen\nblue\n")
    path = save(tmp_path / "m.tflite", flat)
    (tmp_path / "photos" / "red").mkdir(parents=True)
    photo(tmp_path / "photos" / "red" / "grey.png", (90, 90, 90))
    photo(tmp_path / "photos" / "red" / "red.png", (200, 0, 0))
    photos = str(tmp_path / "photos")
    assert main(["classify", path, photos]) == 0
    grey, red = capsys.readouterr().out.splitlines()
    assert grey.startswith("unknown      -") and "red 33" in grey
    assert red.startswith("red ")
    assert main(["evaluate", path, photos]) == 0
    assert "called unknown although known: 1 of 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        (b"cat\ndog\n\n\n", ("cat", "dog")),
        (b"\xef\xbb\xbfcat\ndog", ("cat", "dog")),
        ("K\u00e4tzchen\nHund".encode("latin-1"), ("K\u00e4tzchen", "Hund")),
        (b"1: dog\n0: cat\n", ("cat", "dog")),
        (b"{0: 'cat, small',\n 1: \"dog's\"}\n", ("cat, small", "dog's")),
        (b'{"dog": 1, "cat": 0}', ("cat", "dog")),  # Keras's class_indices
        (b'{"0": "cat",\n "1": "dog"}', ("cat", "dog")),
        (b'["cat", "dog"]', ("cat", "dog")),
        (b"[cat]\n[dog", ("[cat]", "[dog")),
    ],
)
def test_label_files_as_people_have_them(
    content: bytes, labels: tuple[str, ...]
) -> None:
    assert parse_labels(content, "l.txt") == labels


@pytest.mark.parametrize("content", [b"{0: 'a', 2: 'b'}", b"[1, 2]", b"{", b"[]"])
def test_what_looks_like_a_dictionary_of_labels_and_is_none(content: bytes) -> None:
    if len(content) > 1:
        with pytest.raises(ModelError, match=r"l\.txt: expected labels as a list of"):
            parse_labels(content, "l.txt")
    else:
        assert parse_labels(content, "l.txt") == ("{",)


@pytest.mark.parametrize("name", ["labels.txt", "dict.txt"])
def test_labels_beside_the_file_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = save(tmp_path / "m.tflite", network())
    with pytest.raises(ModelError, match=r"no labels inside.*--labels FILE"):
        Classifier(path)
    (tmp_path / name).write_text("rot\ngelb\nblau\n")
    assert Classifier(path).labels == ("rot", "gelb", "blau")
    assert contents(path)["labels.txt"] == b"rot\ngelb\nblau\n"
    assert main(["info", path]) == 0
    out = capsys.readouterr().out
    assert f"labels from {tmp_path / name}" in out and "rot, gelb, blau" in out


def test_damaged_metadata_counts_as_none() -> None:
    record = bytearray(tflite_metadata([("en.txt", AXIS, "")], [1.0], [2.0]))
    record[8:] = b"\xff" * (len(record) - 8)
    file = ModelFile(network(metadata=bytes(record)))
    assert file.metadata.mean == () and file.labels is None


# -- the input ------------------------------------------------------------------------
def test_quantized_inputs_are_normalized_then_quantized() -> None:
    """By their own scale and zero point; without a scale, the options are refused."""
    scale = {"dtype": np.int8, "quantization": (1 / 128, 0)}
    options = ForeignOptions(mean=(127.5,), std=(127.5,))
    value = fed(options, [1, 2, 2, 3], **scale)(colours(0, 128, 255))
    assert value.dtype == np.int8 and value[0, 0, 0].tolist() == [-128, 1, 127]
    plain = fed(ForeignOptions(), [1, 2, 2, 3], **scale)(colours(0, 128, 255))
    assert plain[0, 0, 0].tolist() == [-128, 0, 127]
    with pytest.raises(ModelError, match=r"cannot be applied.*without a scale"):
        fed(options, [1, 2, 2, 3], dtype=np.uint8)


def test_metadata_of_the_float_file_does_not_spoil_a_uint8_one() -> None:
    """Many uint8 files carry it; MediaPipe feeds them the pixels, and so do we."""
    record = tflite_metadata([], [0.0], [1.0])
    more = {"dtype": np.uint8, "quantization": (1 / 128, 128)}
    file = ModelFile(network(metadata=record))
    given = ForeignInput(file, entry([1, 2, 2, 3], **more), ForeignOptions())
    assert given(colours(0, 128, 255))[0, 0, 0].tolist() == [0, 128, 255]
    assert given.sources["scaling"] == "pixels as they are"


def test_channels_first_and_grey() -> None:
    first = fed(ZERO_TO_ONE, [1, 3, 2, 2])
    assert first.recipe == InputRecipe(2, 2, "crop", "bilinear-plain", 8, 0.875)
    value = first(colours(0, 51, 255))
    assert value.shape == (1, 3, 2, 2)
    assert value[0, :, 0, 0] == pytest.approx([0.0, 0.2, 1.0])
    grey = fed(ZERO_TO_ONE, [1, 2, 2, 1])(colours(255, 0, 0))
    want = np.asarray(Image.new("RGB", (1, 1), (255, 0, 0)).convert("L"))[0, 0]
    assert grey.shape == (1, 2, 2, 1) and grey[0, 0, 0, 0] == pytest.approx(want / 255)


@pytest.mark.parametrize(
    ("shape", "more", "message"),
    [
        ([1, 10], {}, r"one input \[1, height, width, 3\], got \[1, 10\]"),
        ([1, 8, 8, 4], {}, r"1 or 3 channels.*NCHW.*got \[1, 8, 8, 4\]"),
        ([1, 8, 8, 3], {"dtype": np.int32}, "uint8, int8 or float32, got int32"),
    ],
)
def test_what_is_no_photo_input_is_named(
    shape: list[int], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        fed(ZERO_TO_ONE, shape, **more)


def test_an_open_size_has_to_be_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never a photo squeezed to 1 x 1."""
    path = save(tmp_path / "m.tflite", network(open_size=True))
    shot = photo(tmp_path / "x.png", (0, 0, 200))
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    assert main(["classify", path, shot]) == 2
    assert "the size of its input is open" in capsys.readouterr().err
    assert main(["classify", path, shot, "--input-size", "8x8"]) == 0
    assert capsys.readouterr().out.startswith("blue")
    assert main(["info", path]) == 0
    out, err = capsys.readouterr()
    assert "the size of its input is open" in err and "[1, any, any, 3]" in out


# -- the output -----------------------------------------------------------------------
def read(
    shape: list[int], labels: tuple[str, ...], *, softmax: bool = False, **more: Any
) -> ForeignOutput:
    """The output of a file whose last operator says nothing, or is a softmax."""
    file = ModelFile(network(FLOAT32, softmax=softmax))
    named = entry(shape, **{"index": 4 if softmax else 3, **more})
    return ForeignOutput(file, [named], labels, "labels", None, {})


def test_logits_get_a_softmax_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "m.tflite", network(FLOAT32, softmax=False))
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    (tmp_path / "photos" / "red").mkdir(parents=True)
    shot = photo(tmp_path / "photos" / "red" / "x.png", (200, 0, 0))
    scaling = ["--mean", "0", "--std", "25"]
    assert main(["classify", path, shot, *scaling]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("red      99.9%") and "softmax is applied" in err
    assert main(["evaluate", path, str(tmp_path / "photos"), *scaling]) == 0
    assert "softmax is applied" in capsys.readouterr().out


def test_probabilities_are_left_as_they_are() -> None:
    known = read([1, 3], LABELS, softmax=True)
    assert known.activation == "softmax"
    unnamed = read([1, 3], LABELS)
    assert unnamed.activation is None
    probabilities = np.array([0.2, 0.5, 0.3], np.float32)
    unnamed.detect_logits([probabilities])
    assert unnamed.note == "" and unnamed(probabilities) is probabilities


def test_one_number_with_two_labels_is_that_of_the_second() -> None:
    output = read([1, 1], ("cat", "dog"))
    assert output(np.array([0.75], np.float32)).tolist() == [0.25, 0.75]
    output.detect_logits([np.array([-3.0], np.float32)])
    assert output.squash == "sigmoid" and "sigmoid is applied" in output.note
    assert output(np.array([0.0], np.float32)).tolist() == [0.5, 0.5]
    with pytest.raises(ModelError, match="expected 1 labels, got 3"):
        read([1, 1], LABELS)


def test_a_background_of_1001_is_no_trouble() -> None:
    names = tuple(f"n{number}" for number in range(1000))
    assert read([1, 1001], names).labels == ("background", *names)
    assert read([1, 1000], ("background", *names)).labels == names


def test_of_several_outputs_the_one_that_fits_the_labels() -> None:
    file = ModelFile(network(FLOAT32))
    outputs = [entry([1, 128], name="embedding"), entry([1, 3], name="scores")]
    assert ForeignOutput(file, outputs, LABELS, "", None, {}).entry["name"] == "scores"
    twins = [entry([1, 3], name="first"), entry([1, 3], name="second")]
    with pytest.raises(ModelError, match=r"first .*, second .*--output-name"):
        ForeignOutput(file, twins, LABELS, "", None, {})
    named = ForeignOutput(file, twins, LABELS, "", "second", {})
    assert named.entry["name"] == "second"


# -- resizing -------------------------------------------------------------------------
def test_the_middle_of_a_photo_without_antialiasing() -> None:
    """As TensorFlow's central_crop and resize_bilinear make it: here of a photo whose
    middle is white, in a black frame."""
    picture = Image.new("RGB", (160, 80))
    picture.paste((255, 255, 255), (45, 5, 115, 75))  # 70 x 70 around the middle
    middle = fit(picture, InputRecipe(7, 7, "crop", "bilinear-plain", 8, 0.875))
    assert middle.min() == 255
    assert fit(picture, InputRecipe(16, 16, "crop", "bilinear-plain", 8)).min() == 0
    stripes = Image.fromarray(np.tile(np.uint8([[0] * 8 + [255] * 8]), (64, 4)))
    sampled = fit(stripes.convert("RGB"), InputRecipe(4, 4, "stretch", "nearest", 8))
    plain = fit(stripes.convert("RGB"), InputRecipe(4, 4, "stretch", "bilinear-plain"))
    smooth = fit(stripes.convert("RGB"), InputRecipe(4, 4, "stretch", "bilinear"))
    assert set(sampled.ravel()) == {255} and set(plain.ravel()) == {127}
    assert 100 < smooth.mean() < 156
    padded = load_pixels(picture, InputRecipe(16, 16, "pad", "bilinear", 1, 0.5))
    assert padded[0].max() == 0 and padded[8].max() == 255


def test_googles_classifiers_say_what_they_are_published_to_say(assets: Path) -> None:
    if not (assets / "reference_tflite").is_dir():
        pytest.skip("EDGEGRAFT_ASSETS has no folder reference_tflite")
    lines = list(published.pictures(assets))
    assert len(lines) == len(published.EXPECTED)
    assert [line for line, met in lines if not met] == []


# -- the packed folder ----------------------------------------------------------------
def test_a_packed_float_file_runs_with_its_own_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(tmp_path / "m.tflite", network(FLOAT32))
    (tmp_path / "names.txt").write_text("rot\ngr\u00fcn\nblau\n")
    out = tmp_path / "out"
    given = ["--labels", str(tmp_path / "names.txt")]
    assert main(["pack", model, "-o", str(out), *given]) == 2
    assert "m.tflite: cannot be packed: a float model" in capsys.readouterr().err
    assert not out.exists()
    given += ["--mean=-1,0,0", "--std", "5"]
    assert main(["pack", model, "-o", str(out), *given]) == 0
    command = next(
        line.split("edge.pyz ")[1]
        for line in (out / "README.md").read_text().splitlines()
        if " classify " in line
    )
    photo(out / "photo.jpg", (0, 0, 250))
    done = subprocess.run(
        [sys.executable, "edge.pyz", *command.split()],
        cwd=out,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("blau")
    service = (out / "edgegraft.service").read_text()
    assert "camera model.tflite --mean=-1,0,0 --std=5" in service


def test_options_for_foreign_files_are_refused_for_our_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "m.tflite", with_card(network(INT8)))
    shot = photo(tmp_path / "x.png", (0, 0, 200))
    assert main(["classify", path, shot, "--crop", "0.5"]) == 2
    assert "leave out --crop" in capsys.readouterr().err


def test_what_is_read_of_a_model_later_was_checked_at_first() -> None:
    """Every byte changed in turn: a network that is passed can be read to its end."""
    whole = network()
    passed = 0
    for at in range(8, len(whole)):
        model = bytearray(whole)
        model[at] ^= 0xFF
        try:
            root = tflite.check(bytes(model), "m.tflite")
        except ModelError:
            continue
        passed += 1
        tflite.custom_operators(root)
        tflite.open_size(root)
        tflite.activation(root, 0)
        tflite.read_metadata(root)
    assert passed > 100
