"""The verb ``classify``: photo after photo, written as text, JSON or CSV.

Nothing is collected, so a folder of any size takes the same memory. A few photos are
done one after another, many by `edge.classify.workers` over all cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, TextIO

from edge.classifier import UNKNOWN, Classifier, Prediction, tenths
from edge.command import ModelOptions
from edge.errors import EdgegraftError, PhotoError
from edge.runtime import thread_warning
from edge.terminal import without_chatter

if TYPE_CHECKING:
    from edge.classify.output import CsvWriter, JsonWriter
    from edge.classify.sources import Item

Answer = PhotoError | tuple[str, tuple[Prediction, float, float]]

FEW = 4  # as many photos at most are done one after another, with all threads
_WIDEST_LABEL = 24  # characters of the label column
_WORTH_PRINTING = 0.0005  # less would print as 0.0%
_PIPE = "-"


@dataclass(frozen=True)
class ClassifyOptions:
    """What to classify, and where the predictions go.

    `photos`: paths, folders, patterns, or "-" for a list on standard input. `format`:
    text, json or csv; `raw`: cells of a CSV as they are, formulas too. `output`: a
    file, None for standard output; `resume` goes on with a CSV that is half done.
    `engine`: local or ray.
    """

    model: ModelOptions
    photos: Sequence[str]
    top_k: int = 3
    format: str = "text"
    output: str | None = None
    resume: bool = False
    workers: int | None = None
    engine: str = "local"
    raw: bool = False

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> ClassifyOptions:
        """From parsed arguments; EdgegraftError for some that do not go together."""
        format_ = "json" if args.json else "csv" if args.csv else "text"
        ending = os.path.splitext(args.output or "")[1].lower().removeprefix(".")
        if ending in ("csv", "json"):
            if format_ not in ("text", ending):
                raise EdgegraftError(
                    f"-o {args.output}: expected a name that ends in .{format_} with "
                    f"--{format_}, got .{ending}"
                )
            format_ = ending
        if args.resume and not (format_ == "csv" and args.output):
            raise EdgegraftError(
                "--resume needs --csv and -o FILE: it continues that file"
            )
        if args.raw and format_ != "csv":
            raise EdgegraftError("expected --raw with --csv")
        return cls(
            ModelOptions.from_args(args),
            tuple(args.photos),
            args.top_k,
            format_,
            args.output,
            args.resume,
            args.workers,
            args.engine,
            args.raw,
        )


def run(args: argparse.Namespace) -> int:
    """Label every photo; 2 when one of them could not be."""
    options = ClassifyOptions.from_args(args)
    unique = None
    items = _items(options.photos)
    piped = _PIPE in options.photos
    if len(options.photos) > 1 and not piped:  # a pipe may repeat what it likes
        from edge.classify.sources import Unique

        unique = Unique()
        items = unique(items)
    first = [] if piped else list(islice(items, FEW + 1))
    few = not piped and len(first) <= FEW
    sequential = options.engine == "local" and (options.workers == 1 or few)
    start = time.perf_counter()
    classifier = open_classifier(options.model, None if sequential else 1)
    load_ms = (time.perf_counter() - start) * 1e3
    if classifier.note:
        print(f"{options.model.model}: {classifier.note}", file=sys.stderr)
    items = chain(first, items)
    if options.output is None:
        writer = _writer(options, sys.stdout, classifier, load_ms)
        _, failed = _write_all(options, classifier, items, sequential, writer)
    else:
        failed = _write_file(options, classifier, items, sequential, load_ms)
    if unique is not None and unique.repeated:
        from edge.text import plural

        repeats = plural(unique.repeated, "repeat")
        print(f"{repeats} left out: each photo is classified once", file=sys.stderr)
    return 2 if failed else 0


def open_classifier(options: ModelOptions, threads: int | None = None) -> Classifier:
    """The classifier of a command line, with a warning for too many threads.

    `threads` is for the case that --threads is not given.
    """
    if options.threads and (warning := thread_warning(options.threads)):
        print(f"edgegraft: warning: {warning}", file=sys.stderr)
    with without_chatter():
        classifier = opened(options, threads)
    if options.region not in (None, classifier.trained_region):
        from edge.region import override

        assert options.region is not None
        note = override(options.region, classifier.trained_region)
        print(f"edgegraft: note: {note}", file=sys.stderr)
    return classifier


def opened(
    options: ModelOptions,
    threads: int | None = None,
    content: bytes | None = None,
    labels: tuple[str, ...] | None = None,
) -> Classifier:
    """The classifier of the options; `content` and `labels` in place of files."""
    return Classifier(
        options.model if content is None else content,
        labels=labels or options.labels,
        runtime=options.runtime,
        threads=options.threads or threads,
        xnnpack=options.xnnpack,
        delegate=options.delegate,
        foreign=options.foreign,
        region=options.region,
    )


class TextWriter:
    """One line for a person: label, probability, photo, the runners-up."""

    def __init__(self, out: TextIO, classifier: Classifier) -> None:
        self.out, self.headed = out, False
        longest = max(map(len, (*classifier.labels, UNKNOWN)))
        self.width = min(longest, _WIDEST_LABEL)

    def begin(self) -> None:
        """Nothing: there is no header."""

    def photo(
        self, path: str, prediction: Prediction, decode_ms: float, inference_ms: float
    ) -> None:
        known, ranking = prediction.known, prediction.ranking
        percent = f"{prediction.probability:7.1%}" if known else "      -"
        rounded = tenths([probability for _, probability in ranking])
        notes = [
            f"{label} {shown:.1%}"
            for (label, probability), shown in zip(ranking, rounded, strict=True)
            if probability >= _WORTH_PRINTING
        ][1 if known else 0 :]
        if not known and prediction.familiarity is not None:
            notes.insert(0, f"familiarity {prediction.familiarity:.3g}")
        details = f"  ({'; '.join(notes)})" if notes else ""
        line = f"{prediction.label:{self.width}}{percent}  {path}{details}"
        if not line.isprintable():
            from edge.text import printable

            line = printable(line)
        print(line, file=self.out)

    def failure(self, path: str, reason: str) -> None:
        """Nothing: standard error has it."""

    def end(self) -> None:
        """Nothing: every line is complete."""


def _writer(
    options: ClassifyOptions, out: TextIO, classifier: Classifier, load_ms: float
) -> TextWriter | JsonWriter | CsvWriter:
    if options.format == "text":
        return TextWriter(out, classifier)
    from edge.classify.output import CsvWriter, JsonWriter

    if options.format == "json":
        return JsonWriter(out, options.model.model, classifier, load_ms)
    return CsvWriter(out, classifier, options.top_k, raw=options.raw)


def _write_file(
    options: ClassifyOptions,
    classifier: Classifier,
    items: Iterable[Item],
    sequential: bool,
    load_ms: float,
) -> int:
    from edge.classify.output import csv_columns, open_output, summary

    assert options.output is not None
    columns = (
        csv_columns(classifier, options.top_k) if options.format == "csv" else None
    )
    with open_output(options.output, columns, resume=options.resume) as (file, done):
        writer = _writer(options, file, classifier, load_ms)
        writer.headed = done.headed
        new = (item for item in items if _first_cell(item, options.raw) not in done)
        earlier = len(done)
        answered, failed = _write_all(
            options, classifier, new, sequential, writer, earlier=earlier
        )
    print(summary(options.output, answered, failed, earlier), file=sys.stderr)
    return failed


def _first_cell(item: Item, raw: bool) -> Item:
    """The first cell of this photo's row."""
    from edge.text import csv_cell

    return item if raw or not isinstance(item, str) else csv_cell(item)


def _write_all(
    options: ClassifyOptions,
    classifier: Classifier,
    items: Iterable[Item],
    sequential: bool,
    writer: TextWriter | JsonWriter | CsvWriter,
    *,
    earlier: int = 0,
) -> tuple[int, int]:
    """Write every prediction in order, as soon as it is there; how many were predicted,
    and how many failed."""
    work = partial(classify_item, top_k=options.top_k)
    writer.begin()
    answered = failed = 0
    progress = None
    answers: Iterable[Answer]
    if sequential:
        answers = (work(classifier, item) for item in items)
    else:
        from edge.terminal import Progress

        answers = _in_order(options, classifier, items, work)
        live = sys.stderr.isatty() and not writer.out.isatty()
        total = _photo_count(options.photos) if live else None
        progress = Progress(total, initial=earlier, live=live)
    for answer in answers:
        if isinstance(answer, tuple):
            answered += 1
            writer.photo(answer[0], *answer[1])
        else:
            from edge.text import printable

            failed += 1
            if progress:
                progress.clear()
            sys.stdout.flush()
            print(f"edgegraft: error: {printable(str(answer))}", file=sys.stderr)
            writer.failure(answer.path, answer.reason)
        if progress:
            progress.step()
    if progress:
        progress.clear()
    writer.end()
    return answered, failed


def _items(arguments: Iterable[str]) -> Iterator[Item]:
    """Photo paths; in their place, what is wrong with a folder or a pattern."""
    for argument in arguments:
        if argument == _PIPE:
            from edge.classify.workers import lines

            try:
                yield from _items(lines())
            except PhotoError as error:
                yield error
        elif os.path.isfile(argument):
            yield argument
        else:
            from edge.classify.sources import photos_or_errors

            yield from photos_or_errors(argument)


def _photo_count(arguments: Sequence[str]) -> int | None:
    """The total of the progress bar; None for a pipe."""
    if _PIPE in arguments:
        return None
    from edge.classify.sources import Unique

    items = _items(arguments)
    return sum(1 for _ in (Unique()(items) if len(arguments) > 1 else items))


def _in_order(
    options: ClassifyOptions,
    classifier: Classifier,
    items: Iterable[Item],
    work: partial[Answer],
) -> Iterator[Answer]:
    """Over all cores, or over a Ray cluster."""
    threads = options.model.threads or 1
    if options.engine == "ray":
        try:
            from edge.classify import ray
        except ImportError:
            raise EdgegraftError(
                "--engine ray: expected a checkout or an installed edgegraft, got the "
                "packed program, which leaves Ray out"
            ) from None
        # The model and its labels travel with the job, their paths do not
        labels = classifier.labels if options.model.labels else None
        build = partial(opened, options.model, 1, classifier.file.content, labels)
        return ray.in_order(
            items, work, build, workers=options.workers, threads=threads
        )
    from edge.classify import workers
    from edge.runtime import cores

    count = options.workers or max(cores() // threads, 1)
    with without_chatter():  # each worker has `threads` threads
        others = [opened(options.model, 1) for _ in range(count - 1)]
    return workers.in_order(items, work, [classifier, *others])


def classify_item(classifier: Classifier, item: Item, *, top_k: int) -> Answer:
    """One photo's prediction, with the milliseconds of decoding and of inference; what
    is wrong with it instead."""
    if isinstance(item, PhotoError):
        return item
    try:
        start = time.perf_counter()
        pixels = classifier.pixels(item)
        decoded = time.perf_counter()
        prediction = classifier.predict(pixels, top_k)
        end = time.perf_counter()
    except PhotoError as error:
        return error
    return item, (prediction, (decoded - start) * 1e3, (end - decoded) * 1e3)
