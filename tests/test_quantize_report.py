"""comparison.html in a real browser: whole, quiet, offline, and it answers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from edge.evaluate import score
from finetune.run import Run
from quantize.comparison import choose
from quantize.comparison.compare import compare
from quantize.comparison.records import Budget, Setting, Timing
from quantize.export import export
from quantize.reporting import html, plot
from quantize.reporting.plot import NARROW, WIDE, svg
from tests.quantize_room import LABELS, QUICK, colour_network, write_photos, write_run

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

pytestmark = pytest.mark.slow  # networks are trained or converted

BUBBLE = '[id*="-file-"]'
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
    run = write_run(
        folder / "run", photos, colour_network(common=-500.0, to_blue=5.054)
    )
    variants = "float32,dynamic,int8"
    export(run, variants, calibration_count=8, max_drop=1.0, repair=False)  # no repairs
    Image.new("RGB", (40, 30)).save(run.folder / "layers.png")
    run.write_json("layers.json", LAYERS)
    effort = replace(QUICK.effort, threads=(1, 2))
    options = replace(QUICK, budget=Budget(ms=50), effort=effort)
    return compare(Run.open(run.folder), options)


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
        *("Plot", "Accuracy", "Export", "Times", "Targets", "Labels", "Confusion"),
        *("Mistakes", "Layers", "Cards"),
    ]
    assert page.inner_text(".verdict strong") == compared.choice.file.path.name
    assert page.inner_text(".verdict .why") == f"{compared.choice.why}."
    assert page.locator("#cost tbody tr").count() == 3 * 2  # files, thread counts
    by_label = page.locator("#labels tbody tr").all_inner_texts()
    counts = [row["photos"] for row in compared.files[0].evaluation.rows]
    assert [int(row.split("\t")[2]) for row in by_label[::3]] == counts
    wrong = sum(file.paired.lost for file in compared.files if file.paired)
    assert wrong > 0 and page.locator("#mistakes img").count() == wrong
    loaded = page.evaluate(
        "[...document.images].every(image => image.complete && image.naturalWidth)"
    )
    assert loaded and page.locator("#layers img").count() == 1
    first, second = page.locator("#layers tbody tr").all_inner_texts()
    assert first.split("\t")[2:] == ["conv <1>", "31.2", "1.250%", "90.0%", "100.0%"]
    assert second.split("\t")[3:] == ["40.0", "-", "-", "-"]
    int8 = compared.files[2]
    matrix = page.locator("#confusion .panel").nth(2)
    cells = [int(cell) for cell in matrix.locator("td").all_inner_texts()]
    assert cells == [n for row in int8.evaluation.confusion for n in row]
    page.locator("#cards summary").nth(2).click()
    assert '"variant": "int8"' in page.locator("#cards pre").nth(2).inner_text()


def test_a_click_on_a_head_sorts(opened, compared):
    page, _, _ = opened
    head = page.locator("#files th", has_text="balanced accuracy")
    cells = page.locator("#files tbody tr td:nth-child(2)")
    shares = sorted(file.evaluation.balanced_accuracy for file in compared.files)
    head.locator("button").click()
    assert cells.all_inner_texts() == [f"{share:.1%}" for share in shares]
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert cells.all_inner_texts() == [f"{share:.1%}" for share in shares[::-1]]


def test_hovering_and_the_keyboard_show_a_files_figures(opened, compared):
    page, _, _ = opened
    tip = page.locator("#tip")
    assert not tip.is_visible()
    bubble = page.locator(f"#plot-0 .broad {BUBBLE}").last
    bubble.hover()
    number = bubble.get_attribute("id").split("-file-")[1]
    file = compared.files[int(number)]
    shown = tip.inner_text()
    assert shown.startswith(file.title)
    assert f"{file.evaluation.balanced_accuracy:.1%}" in shown
    assert str(compared.deciding_setting) in shown
    assert page.locator("#files tr.lit").get_attribute("data-file") == number
    page.mouse.move(5, 5)
    assert not tip.is_visible()
    bubble.focus()
    assert tip.is_visible()


def test_each_setting_has_its_plot(opened, compared):
    page, _, _ = opened
    tabs = page.locator(".tabs button")
    assert sorted(tabs.all_inner_texts()) == sorted(map(str, compared.settings))
    assert tabs.first.inner_text() == str(compared.deciding_setting)
    tabs.last.click()
    assert not page.locator("#plot-0").is_visible()
    assert page.locator(f"#plot-1 .broad {BUBBLE}").count() == len(compared.files)


def test_without_scripts_nothing_is_hidden(browser, compared):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((compared.folder / "comparison.html").as_uri())
    for number in range(len(compared.settings)):
        assert page.locator(f"#plot-{number}").is_visible()
    assert not page.locator(".tabs").is_visible()
    context.close()


# -- the plot ------------------------------------------------------------------------

DESK = Setting("a desk", "litert 2.3.0", 1)


def comparison(*spots, budget=None, runs=()):
    """Of files at (name, accuracy in %, ms, MB), all of one run or of `runs`."""
    files = []
    for number, (name, share, ms, mb) in enumerate(spots):
        guess = np.eye(2, dtype=np.float32)[[0] * share + [1] * (100 - share)]
        timing = Timing(DESK, 1.0, 1.0, ms, ms, ms, None, 50.0, 1)
        files.append(
            SimpleNamespace(
                title=name,
                run=runs[number] if runs else "run",
                variant="int8",
                evaluation=score(guess, np.zeros(100, int), LABELS),
                rejected=False,
                size_bytes=int(mb * 1e6),
                timing_in=lambda setting, timing=timing: timing,
            )
        )
    return SimpleNamespace(
        run="run",
        host={"board": "a desk", "cores": 2, "machine": "x86_64"},
        settings=(DESK,),
        deciding_setting=DESK,
        files=files,
        budget=Budget(ms=budget),
        choice=SimpleNamespace(file=files[0]),
    )


def words_of(figure):
    """The label and number texts in a figure's plot, with their boxes in pixels."""
    figure.draw_without_rendering()
    (axes,) = figure.axes
    return {
        text.get_text().split("\n")[0]: text.get_window_extent() for text in axes.texts
    }


MANY = [
    (f"run{n // 2}/{('float32', 'int8')[n % 2]}", 70 + n, 2.0 + n % 5, 1 + n)
    for n in range(16)
]


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize(
    "spots",
    [
        [("one", 100, 3.0, 1.0)],
        [("float32", 97, 4.0, 9.0), ("int8", 96, 3.9, 2.5)],
        [("same", 96, 1.0, 1.0), ("same too", 96, 1.0, 1.0), ("also", 96, 1.0, 9.0)],
        [("fast", 0, 0.01, 0.1), ("slow", 100, 900.0, 90.0)],
        MANY,
    ],
    ids=["alone", "two", "on each other", "far apart", "sixteen"],
)
def test_every_file_is_named_once_and_no_label_lies_on_another(size, spots):
    """By its name in the plot, or by a number and in the key."""
    figure = plot.draw(comparison(*spots, budget=2.0), DESK, size)
    boxes = words_of(figure)
    boxes.pop("budget 2 ms", None)
    key = [t.get_text() for one in figure.legends for t in one.get_texts()]
    boxes.pop("", None)  # lines from labels to bubbles
    named = {name for name in boxes if not name.replace(",", "").isdigit()}
    assert named | {line.split("  ", 1)[1] for line in key} == {s[0] for s in spots}
    numbers = ",".join(set(boxes) - named)  # one text for bubbles on each other
    assert {line.split("  ", 1)[0] for line in key} == set(numbers.split(",")) - {""}
    inside = figure.bbox
    for name in named:
        box = boxes[name]
        assert box.x0 >= inside.x0 and box.x1 <= inside.x1
        others = [boxes[other] for other in named if other != name]
        assert not any(box.overlaps(other) for other in others)


def test_a_run_has_one_colour_and_in_a_single_run_each_variant():
    runs = [name.split("/")[0] for name, *_ in MANY[:6]]
    found = comparison(*MANY[:6], runs=runs)
    hues = [plot.hue(found, file) for file in found.files]
    assert hues == [0, 0, 1, 1, 2, 2]
    alone = comparison(("float32", 97, 4.0, 9.0), ("int8", 96, 3.9, 2.5))
    alone.files[0].variant = "float32"
    assert len({plot.hue(alone, file) for file in alone.files}) == 2


def test_the_front_runs_through_no_file_that_another_beats():
    """`even` is as accurate as `fast`, and `late` as `best`, but each is slower."""
    spots = [("fast", 90, 1.0, 1), ("even", 90, 2.0, 1), ("best", 95, 3.0, 1)]
    found = comparison(*spots, ("late", 95, 4.0, 1))
    (axes,) = plot.draw(found, DESK).axes
    (line,) = [one for one in axes.lines if one.get_gid() == "plot-front"]
    assert list(line.get_xdata()) == [1.0, 3.0]
    best = choose.front(found.files, DESK)
    assert [file.title for file in best] == ["fast", "best"]


def test_a_larger_file_has_the_larger_bubble_by_area():
    found = comparison(("s", 90, 1.0, 2.0), ("l", 95, 2.0, 8.0))
    (axes,) = plot.draw(found, DESK).axes
    small, large = (
        one.get_sizes()[0]
        for one in axes.collections
        if (one.get_gid() or "").startswith("plot-file-")
    )
    assert large / small == pytest.approx(4.0, rel=0.01)


def test_the_svg_has_the_words_and_a_group_for_each_file():
    found = comparison(("one <1>", 90, 1.0, 2.0), ("two", 95, 2.0, 8.0))
    text = svg(found, DESK, WIDE)
    assert text.startswith("<svg") and "one &lt;1&gt;" in text and ">two<" in text
    for number in range(2):
        assert text.count(f'id="plot-0-8-file-{number}"') == 1
    assert svg(found, DESK, WIDE) == text  # the same bytes again


def test_many_labels_are_listed_as_confusions():
    labels = tuple(f"label {number:03}" for number in range(80))
    truth = np.arange(80)
    guess = truth.copy()
    guess[7] = 11
    evaluation = score(np.eye(80, dtype=np.float32)[guess], truth, labels)
    matrix = html._matrix(SimpleNamespace(evaluation=evaluation))
    assert matrix.count("<tr>") == 1 and "label 007 answered label 011" in matrix
