"""comparison.html in a real browser: whole, quiet, offline, and it answers."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from edge.evaluate import score
from finetune.run import Run
from quantize import recipes
from quantize.comparison import evidence
from quantize.comparison.choose import Budget
from quantize.comparison.compare import compare
from quantize.comparison.timing import Setting, Timing
from quantize.export import export
from quantize.reporting import svg as chart
from quantize.reporting.svg import NARROW, WIDE, draw
from tests.quantize_room import LABELS, QUICK, colour_network, write_photos, write_run

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

LAYERS = {
    "rung": "int8",
    "noise_photos": 8,
    "validation_photos": 10,
    "float32_accuracy": 1.0,
    "int8_accuracy": 0.8,
    "layers": [
        {
            "number": 1,
            "operator": "CONV_2D",
            "name": "conv <1>",
            "sqnr_db": 31.25,
            "answer_shift": 0.0125,
            "cost": {"alone_int8": 0.9, "kept_float": 1.0},
        },
        {
            "number": 2,
            "operator": "FULLY_CONNECTED",
            "name": "logits",
            "sqnr_db": 40.0,
            "answer_shift": None,
            "cost": None,
        },
    ],
}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A run whose int8 file loses photos; a picture of its layers lies beside."""
    folder = tmp_path_factory.mktemp("page")
    photos = write_photos(folder / "photos")
    run = write_run(folder / "run", photos, colour_network(common=-20_000.0))
    export(run, "float32,dynamic,int8", calibration_count=8, max_drop=1.0)
    compare(run, effort=QUICK)
    shutil.copy(run.folder / "comparison.png", run.folder / "layers.png")
    run.write_json("layers.json", LAYERS)
    return compare(Run.open(run.folder), effort=QUICK, budget=Budget(ms=50))


@pytest.fixture
def opened(browser, compared):
    """(page, what it complained of, what it asked for)."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((compared.folder / "comparison.html").as_uri())
    yield page, complaints, asked
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_offline_without_a_complaint(opened, compared, scheme, width):
    page, complaints, asked = opened
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.reload()
    whole = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert whole[0] <= whole[1]  # nothing sticks out sideways, on a phone either
    assert complaints == []
    own = (compared.folder / "comparison.html").as_uri()
    assert [url for url in asked if url != own and not url.startswith("data:")] == []
    ink, ground = page.evaluate(
        "[getComputedStyle(document.body).color,"
        " getComputedStyle(document.body).backgroundColor]"
    )
    assert (brightness(ink) > brightness(ground)) == (scheme == "dark")


def brightness(colour):
    return sum(int(part) for part in colour[4:-1].split(","))


def test_it_shows_all_that_was_measured(opened, compared):
    page, _, _ = opened
    links = page.locator("nav a").all_inner_texts()
    assert links == [
        *("Plot", "Accuracy", "Times", "Targets", "Labels", "Confusion", "Mistakes"),
        *("Layers", "Cards"),
    ]
    assert page.inner_text(".verdict strong") == compared.choice.file.path.name
    assert page.inner_text(".verdict .why") == f"{compared.choice.why}."
    assert page.locator("#cost tbody tr").count() == 3 * 2  # files, thread counts
    assert page.locator("#classes tbody tr").count() == 3 * len(LABELS)
    wrong = sum(file.paired.lost for file in compared.files)
    assert wrong > 0 and page.locator("#mistakes img").count() == wrong
    loaded = page.evaluate(
        "[...document.images].every(image => image.complete && image.naturalWidth)"
    )
    assert loaded and page.locator("#layers img").count() == 1
    first, second = page.locator("#layers tbody tr").all_inner_texts()
    assert first.split("\t")[2:] == ["conv <1>", "31.2", "1.250%", "90.0%", "100.0%"]
    assert second.split("\t")[3:] == ["40.0", "–", "–", "–"]
    int8 = compared.files[2]
    matrix = page.locator("#confusion .panel").nth(2)
    cells = [int(cell) for cell in matrix.locator("td").all_inner_texts()]
    assert cells == [n for row in int8.evaluation.confusion for n in row]
    page.locator("#cards summary").nth(2).click()
    assert '"variant": "int8"' in page.locator("#cards pre").nth(2).inner_text()


def test_a_click_on_a_head_sorts(opened, compared):
    page, _, _ = opened
    head = page.locator("#files th", has_text="accuracy")
    cells = page.locator("#files tbody tr td:nth-child(2)")
    shares = sorted(file.evaluation.accuracy for file in compared.files)
    head.locator("button").click()
    assert cells.all_inner_texts() == [f"{share:.1%}" for share in shares]
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert cells.all_inner_texts() == [f"{share:.1%}" for share in shares[::-1]]


def test_hovering_and_the_keyboard_tell_a_files_figures(opened, compared):
    page, _, _ = opened
    tip = page.locator("#tip")
    assert not tip.is_visible()
    bubble = page.locator("#plot-0 .broad .bubble").last
    bubble.hover()
    file = compared.files[int(bubble.get_attribute("data-file"))]
    told = tip.inner_text()
    assert told.startswith(file.title) and f"{file.evaluation.accuracy:.1%}" in told
    assert str(compared.judged) in told
    lit = page.locator("#files tr.lit").get_attribute("data-file")
    assert lit == bubble.get_attribute("data-file")
    page.mouse.move(5, 5)
    assert not tip.is_visible()
    bubble.focus()
    assert tip.is_visible()


def test_each_setting_has_its_plot(opened, compared):
    page, _, _ = opened
    tabs = page.locator(".tabs button")
    assert sorted(tabs.all_inner_texts()) == sorted(map(str, compared.settings))
    assert tabs.first.inner_text() == str(compared.judged)
    tabs.last.click()
    assert not page.locator("#plot-0").is_visible()
    assert page.locator("#plot-1 .broad .bubble").count() == len(compared.files)


def test_without_scripts_nothing_is_hidden(browser, compared):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((compared.folder / "comparison.html").as_uri())
    for number in range(len(compared.settings)):
        assert page.locator(f"#plot-{number}").is_visible()
    assert not page.locator(".tabs").is_visible()
    context.close()


# -- the drawing ---------------------------------------------------------------------

DESK = Setting("a desk", "litert 2.3.0", 1)


def comparison(*spots, budget=None):
    """Of files at (name, accuracy in %, ms, MB)."""
    files = []
    for name, share, ms, mb in spots:
        guess = np.eye(2, dtype=np.float32)[[0] * share + [1] * (100 - share)]
        timing = Timing(DESK, 1.0, 1.0, ms, ms, ms, None, 50.0, 1)
        files.append(
            SimpleNamespace(
                title=name,
                evaluation=score(guess, np.zeros(100, int), LABELS),
                rejected=False,
                size_bytes=int(mb * 1e6),
                at=lambda setting, timing=timing: timing,
            )
        )
    return SimpleNamespace(
        files=files, budget=Budget(ms=budget), choice=SimpleNamespace(file=files[0])
    )


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize(
    "spots",
    [
        [("one", 100, 3.0, 1.0)],
        [("same", 96, 1.0, 1.0), ("same too", 96, 1.0, 1.0), ("also", 96, 1.0, 9.0)],
        [("fast", 0, 0.01, 0.1), ("slow", 100, 900.0, 90.0)],
    ],
    ids=["alone", "on each other", "far apart"],
)
def test_every_name_has_room_in_the_drawing(browser, size, spots):
    page = browser.new_page(viewport={"width": int(size.width), "height": 500})
    svg = draw(comparison(*spots, budget=2.0), DESK, size)
    page.set_content(f"<style>body{{margin:0}}</style>{svg}")
    boxes = [box.bounding_box() for box in page.locator(".name").all()]
    assert len(boxes) == len(spots)
    for place, box in enumerate(boxes):
        assert box["x"] >= 0 and box["x"] + box["width"] <= size.width
        for other in boxes[:place]:
            apart_x = other["x"] + other["width"] <= box["x"] + 1
            apart_x |= box["x"] + box["width"] <= other["x"] + 1
            assert apart_x or abs(other["y"] - box["y"]) >= 10
    page.close()


def test_the_front_runs_through_no_file_that_another_beats():
    """`even` is as accurate as `fast`, and `late` as `best`, but each is slower."""
    spots = [("fast", 90, 1.0, 1), ("even", 90, 2.0, 1), ("best", 95, 3.0, 1)]
    svg = draw(comparison(*spots, ("late", 95, 4.0, 1)), DESK, WIDE)
    (line,) = (part.split('"')[0] for part in svg.split('class="front" d="')[1:])
    ends = [tuple(map(float, end.split())) for end in line[1:].split("L")]
    bubbles = [part.split('"')[:3:2] for part in svg.split(' cx="')[1:]]
    places = [tuple(map(float, bubble)) for bubble in bubbles]  # in the order given
    assert ends == [places[0], places[2]]
    alone = draw(comparison(spots[2], ("late", 95, 4.0, 1)), DESK, WIDE)
    assert 'class="front"' not in alone


def test_a_variant_keeps_its_colour_however_many_there_are():
    def file(title, variant):
        return SimpleNamespace(title=title, variant=variant, rejected=False)

    assert chart.hue(1, file("int8", "int8")) == chart.hue(3, file("int8", "int8"))
    found = {chart.hue(0, file(name, name)) for name in recipes.VARIANTS}
    assert len(found) == len(recipes.VARIANTS)
    # of several runs every file has its own
    assert chart.hue(1, file("b/int8", "int8")) != chart.hue(3, file("a/int8", "int8"))


def test_a_larger_file_has_the_larger_bubble_by_area():
    svg = draw(comparison(("s", 90, 1.0, 2.0), ("l", 95, 2.0, 8.0)), DESK, WIDE)
    large, small = (float(part.split('"')[0]) for part in svg.split(' r="')[1:])
    assert large / small == pytest.approx(2.0, rel=0.01)


def test_many_labels_are_told_as_mix_ups():
    labels = tuple(f"label {number:03}" for number in range(80))
    truth = np.arange(80)
    guess = truth.copy()
    guess[7] = 11
    told = evidence._matrix(
        SimpleNamespace(
            evaluation=score(np.eye(80, dtype=np.float32)[guess], truth, labels)
        )
    )
    assert told.count("<tr>") == 1 and "label 007 called label 011" in told
