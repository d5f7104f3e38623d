"""A model file and a photo give a label; what does not fit is told."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.classifier import UNKNOWN, Classifier, _adding_up
from edge.errors import ModelError, PhotoError
from edge.foreign import ForeignOptions
from edge.preprocess import InputRecipe
from edge.tflite import read_label_file
from tests.edge_models import (
    FLOAT32,
    INT8,
    LABELS,
    SIDE,
    UINT8,
    network,
    with_card,
    with_files,
)

BOTH = {"probabilities": "probabilities", "familiarity": "familiarity"}
KINDS = pytest.mark.parametrize("kind", [UINT8, INT8, FLOAT32])


def plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (20, 20), colour)


def expected(colour: tuple[int, int, int]) -> np.ndarray:
    """The network's formula, by hand."""
    powers = np.exp(0.05 * (np.array(colour, float) - max(colour)))
    return powers / powers.sum()


@KINDS
def test_numbers_are_those_of_the_network(kind: int) -> None:
    classifier = Classifier(with_card(network(kind)), threads=1)
    for colour in ((200, 100, 10), (20, 80, 60), (0, 1, 2)):
        found = classifier.classify(plain(colour))
        chances = dict(found.ranking)
        step = 1e-5 if kind == FLOAT32 else 1.5 / 256  # the output's quantization
        for label, chance in zip(LABELS, expected(colour), strict=True):
            assert chances[label] == pytest.approx(chance, abs=step)
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
        assert found.label == found.ranking[0][0]
        assert found.probability == found.ranking[0][1]
        assert found.familiarity is None and found.known


def test_probabilities_of_integers_add_up_to_1() -> None:
    """As printed: 99.6 % and 0.4 %, not 99.6 % and 0.0 %."""
    entry = {"quantization": (1 / 256, 0)}

    def shares(*steps: int) -> np.ndarray:
        return _adding_up(np.array(steps, np.float32) / 256, entry)

    assert shares(255, 0).tolist() == [255 / 256, 1 / 256]
    assert shares(250, 4, 0, 0).tolist() == [250 / 256, 4 / 256, 1 / 256, 1 / 256]
    assert shares(129, 128).sum() == pytest.approx(1)
    assert shares(100, 156).tolist() == [100 / 256, 156 / 256]
    assert shares(200, 200).tolist() == [200 / 256, 200 / 256]  # two sigmoids
    floats = np.array([0.3, 0.3], np.float32)
    assert _adding_up(floats, {"quantization": (0.0, 0)}) is floats


@KINDS
def test_unfamiliar_photos_are_unknown(kind: int) -> None:
    model = with_card(
        network(kind, familiarity=True), outputs=BOTH, familiarity_threshold=100.0
    )
    classifier = Classifier(model)
    bright, dark = (classifier.classify(plain((0, g, 0))) for g in (200, 90))
    assert bright.known and bright.label == "green"
    assert bright.familiarity == pytest.approx(200)
    assert not dark.known and dark.label == UNKNOWN
    assert dark.ranking[0][0] == "green"
    assert dark.familiarity == pytest.approx(90)


def test_without_a_threshold_everything_is_known() -> None:
    model = with_card(network(familiarity=True), outputs=BOTH)
    found = Classifier(model).classify(plain((0, 5, 0)))
    assert found.known and found.familiarity == pytest.approx(5)


def test_many_photos_at_once() -> None:
    classifier = Classifier(with_card(network(familiarity=True), outputs=BOTH))
    colours = [(200, 0, 0), (0, 150, 0), (0, 0, 100), (90, 0, 0)]
    pixels = np.stack([np.full((SIDE, SIDE, 3), c, np.uint8) for c in colours])
    out = classifier.run(pixels)
    assert out["probabilities"].shape == (4, 3)
    assert out["probabilities"].dtype == np.float32
    assert out["probabilities"].argmax(axis=1).tolist() == [0, 1, 2, 0]
    assert out["familiarity"].tolist() == [200, 150, 100, 90]
    assert np.array_equal(classifier.probabilities(pixels), out["probabilities"])
    none = classifier.run(pixels[:0])
    assert none["probabilities"].shape == (0, 3) and none["familiarity"].shape == (0,)


def test_results_do_not_change_afterwards() -> None:
    """Nothing handed out is a view into the interpreter's memory."""
    classifier = Classifier(with_card(network(FLOAT32)))
    red = np.full((1, SIDE, SIDE, 3), (200, 0, 0), np.uint8)
    first = classifier.probabilities(red)
    kept = first.copy()
    classifier.probabilities(255 - red)
    assert np.array_equal(first, kept)


def test_top_k() -> None:
    classifier = Classifier(with_card(network()))
    for asked, told in ((1, 1), (2, 2), (99, 3)):
        assert len(classifier.classify(plain((9, 99, 0)), asked).ranking) == told


def test_what_a_classifier_tells_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(with_card(network(), name="tiny"))
    classifier = Classifier(path)
    assert classifier.labels == LABELS
    assert classifier.card is not None and classifier.card.name == "tiny"
    assert classifier.recipe == InputRecipe(SIDE, SIDE)
    assert classifier.input_dtype == np.uint8
    assert classifier.runtime.name in ("litert", "tflite-runtime", "tf.lite")


def test_labels_come_from_arguments_card_or_metadata(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("rouge\nvert\nbleu\n")
    for labels in (file, str(file), ["rouge", "vert", "bleu"]):
        for model in (network(), with_card(network())):
            found = Classifier(model, labels=labels).classify(plain((0, 0, 200)))
            assert found.label == "bleu"
    foreign = with_files(network(), labels_txt="rot\ngrün\nblau\n")
    assert Classifier(foreign).classify(plain((0, 0, 200))).label == "blau"


def test_a_file_without_signature_still_runs() -> None:
    model = network(signature=False)
    assert Classifier(model, labels=LABELS).classify(plain((0, 0, 99))).label == "blue"
    assert Classifier(with_card(model)).classify(plain((0, 0, 99))).label == "blue"


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (network(), {}, r"no labels inside.*--labels FILE"),
        (network(), {"labels": ["a", "b"]}, r"expected 3 labels, got 2"),
        (network(), {"labels": list("abcdef")}, r"expected 3 labels, got 6"),
        (with_card(network(), labels=("a", "b")), {}, "got 2 from its card"),
        (
            with_card(network(), input=InputRecipe(9, 9)),
            {},
            r"8, 3\], its card says \[1, 9",
        ),
        (
            with_card(network()),
            {"foreign": ForeignOptions(crop=0.5, mean=(0.0,), std=(1.0,))},
            "its card says how.*leave out --crop, --mean, --std",
        ),
        (
            network(),
            {"labels": LABELS, "foreign": ForeignOptions(size=(9, 8))},
            "size of its input is fixed",
        ),
        (
            network(),
            {"labels": LABELS, "foreign": ForeignOptions(output="odd")},
            "no such output; it has probabilities",
        ),
        (network(FLOAT32), {"labels": LABELS}, "does not say how.*--mean and --std"),
        (
            with_card(network(familiarity=True), outputs={"probabilities": "odd"}),
            {},
            "names the output 'odd'.*familiarity, probabilities",
        ),
        (with_card(network(), model_sha256="0" * 64), {}, "changed or damaged since"),
    ],
)
def test_what_does_not_fit_is_told(
    model: bytes, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        Classifier(model, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_two_wide_outputs_need_a_card() -> None:
    model = network(familiarity=True)  # one of them is a single number: no doubt
    assert Classifier(model, labels=LABELS).classify(plain((0, 0, 99))).label == "blue"


def test_a_network_without_softmax_is_refused() -> None:
    classifier = Classifier(with_card(network(FLOAT32, softmax=False)))
    with pytest.raises(ModelError, match=r"outputs from 0 to 1.*softmax"):
        classifier.classify(plain((0, 0, 99)))


def test_foreign_float_models_are_scaled_as_told() -> None:
    model = network(FLOAT32)
    one = ForeignOptions(mean=(100.0,), std=(0.5,))
    three = ForeignOptions(mean=(100.0, 100.0, 50.0), std=(0.5, 0.5, 2.5))
    for options in (one, three):
        found = Classifier(model, labels=LABELS, foreign=options)
        by_label = dict(found.classify(plain((110, 120, 100))).ranking)
        want = expected((20, 40, 0 if options is one else 20))
        got = [by_label[label] for label in LABELS]
        assert got == pytest.approx(want.tolist(), abs=1e-5)


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ModelError, match="std other than 0"):
        ForeignOptions(mean=(0.0,), std=(0.0,))
    with pytest.raises(ModelError, match="--mean and --std together"):
        ForeignOptions(mean=(0.0,))
    with pytest.raises(ModelError, match="one number or three"):
        ForeignOptions(mean=(0.0, 0.0), std=(1.0,))


def test_every_kind_of_photo_gives_the_same_label(tmp_path: Path) -> None:
    classifier = Classifier(with_card(network()))
    pixels = np.full((20, 30, 3), (0, 0, 200), np.uint8)
    image = Image.fromarray(pixels)
    path = tmp_path / "blue.png"
    image.save(path)
    kinds = [path, str(path), path.read_bytes(), image, pixels]
    found = [classifier.classify(kind) for kind in kinds]
    assert [p.label for p in found] == ["blue"] * 5 and len(set(found)) == 1
    with pytest.raises(PhotoError, match=r"expected uint8 \[height, width, 3\]"):
        classifier.classify(pixels.astype(np.float32))
    assert repr(classifier).startswith("Classifier('model': 3 labels (red, green")


def test_wrong_pixels_are_refused() -> None:
    classifier = Classifier(with_card(network()))
    for pixels in (
        np.zeros((1, SIDE, SIDE, 3), np.float32),
        np.zeros((SIDE, SIDE, 3), np.uint8),
        np.zeros((1, SIDE + 1, SIDE, 3), np.uint8),
    ):
        with pytest.raises(ModelError, match=r"expected pixels uint8 \[N, 8, 8, 3\]"):
            classifier.run(pixels)


def test_a_classifier_is_freed_at_once() -> None:
    """Without the collector: its interpreter has megabytes."""
    gc.disable()
    try:
        for model in (with_card(network()), network()):
            classifier = Classifier(model, labels=LABELS)
            classifier.classify(plain((0, 0, 99)))
            gone = weakref.ref(classifier)
            del classifier
            assert gone() is None
    finally:
        gc.enable()


def test_one_classifier_for_each_thread() -> None:
    model = with_card(network())
    wrong: list[str] = []

    def work(colour: tuple[int, int, int], label: str) -> None:
        classifier = Classifier(model, threads=1)
        for _ in range(50):
            found = classifier.classify(plain(colour)).label
            if found != label:
                wrong.append(found)

    jobs = [((200, 0, 0), "red"), ((0, 200, 0), "green"), ((0, 0, 200), "blue")]
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("a\nb\n", ("a", "b")),
        ("\ufeffa\r\nb b\r\n\r\n", ("a", "b b")),
        ("0 cat\n1 dog, big\n", ("cat", "dog, big")),
        ("1:dog\n0:cat\n", ("cat", "dog")),
        ("0 a\n2 b\n", ("0 a", "2 b")),  # not 0 to n-1: the numbers are names
        ("7 up\ncola\n", ("7 up", "cola")),
        ("???\nbackground\n", ("???", "background")),
    ],
)
def test_label_files(text: str, labels: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(text.encode())
    assert read_label_file(path) == labels


def test_unusable_label_files(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    with pytest.raises(ModelError, match="No such file"):
        read_label_file(path)
    path.write_bytes(b"\n\n")
    with pytest.raises(ModelError, match="got none"):
        read_label_file(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="text file"):
        read_label_file(path)
