"""The verb ``classify``: photo after photo, told as text, JSON or CSV.

Nothing is collected, so a folder of any size takes the same memory. A few photos are
done one after another, many by `edge.classify.workers` over all cores.

It does not know: how a photo is classified.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice

from edge.classifier import Classifier, Prediction
from edge.classify.formats import Csv, Json, Text, header
from edge.classify.sources import Item, Once, photos
from edge.errors import EdgegraftError, PhotoError
from edge.preprocess import load_pixels
from edge.quiet import without_chatter
from edge.runtime import too_many

_Answer = PhotoError | tuple[str, tuple[Prediction, float, float]]

FEW = 4  # as many photos at most are done one after another, with all threads


def classify(args: argparse.Namespace) -> int:
    """Label every photo; 2 when one of them could not be."""
    _format_by_ending(args)
    if args.resume and not (args.csv and args.output):
        raise EdgegraftError("expected --resume with --csv and -o FILE")
    once = Once()
    items = _items(args.photos)
    if len(args.photos) > 1 and "-" not in args.photos:  # a pipe asks as it likes
        items = once(items)
    first = [] if "-" in args.photos else list(islice(items, FEW + 1))
    few = "-" not in args.photos and len(first) <= FEW
    alone = args.engine == "local" and (args.workers == 1 or few)
    start = time.perf_counter()
    classifier = open_classifier(args, None if alone else 1)
    load_ms = (time.perf_counter() - start) * 1e3
    kind = Json if args.json else Csv if args.csv else Text
    if args.output is None:
        answers = kind(sys.stdout, args.model, classifier, args.top_k, load_ms)
        _, failed = _tell(args, classifier, chain(first, items), alone, answers)
        _remark(once)
        return 2 if failed else 0
    from edge.classify.output import output, summary

    columns = header(classifier, args.top_k) if args.csv else None
    with output(args.output, columns, resume=args.resume) as (file, done):
        answers = kind(file, args.model, classifier, args.top_k, load_ms)
        answers.headed = done.headed
        left = (item for item in chain(first, items) if item not in done)
        earlier = len(done)
        answered, failed = _tell(args, classifier, left, alone, answers, earlier)
    print(summary(args.output, answered, failed, earlier), file=sys.stderr)
    _remark(once)
    return 2 if failed else 0


def _format_by_ending(args: argparse.Namespace) -> None:
    """A file called .csv or .json holds that; EdgegraftError where another is asked."""
    ending = os.path.splitext(args.output or "")[1].lower().removeprefix(".")
    if ending not in ("csv", "json"):
        return
    other = "json" if ending == "csv" else "csv"
    if getattr(args, other):
        raise EdgegraftError(
            f"-o {args.output}: expected a name that ends in .{other} with --{other}, "
            f"got .{ending}"
        )
    setattr(args, ending, True)


def _remark(once: Once) -> None:
    if once.repeated:
        from edge.text import plural

        told = f"{plural(once.repeated, 'repeat')} left out: each photo has one answer"
        print(told, file=sys.stderr)


def _tell(
    args: argparse.Namespace,
    classifier: Classifier,
    items: Iterator[Item],
    alone: bool,
    answers: Text,
    earlier: int = 0,
) -> tuple[int, int]:
    """Every answer, in order, as soon as it is there; how many, and how many not."""

    work = partial(_one, top_k=args.top_k)
    answers.begin()
    answered = failed = 0
    progress = None
    told: Iterable[_Answer]
    if alone:
        told = (work(classifier, item) for item in items)
    else:
        from edge.classify import workers

        if args.engine == "ray":
            told = _on_cluster(args, classifier, items, work)
        else:
            told = workers.in_order(items, work, _workers(args, classifier))
        live = sys.stderr.isatty() and not answers.out.isatty()
        total = _count(args.photos) if live else None
        from edge.progress import Progress

        progress = Progress(total, earlier=earlier, live=live)
    for answer in told:
        if isinstance(answer, tuple):
            answered += 1
            answers.photo(answer[0], *answer[1])
        else:
            failed += 1
            if progress:
                progress.clear()
            _report(answer)
            answers.failure(answer.path, answer.reason)
        if progress:
            progress.step()
    if progress:
        progress.clear()
    answers.end()
    return answered, failed


def _items(arguments: Iterable[str]) -> Iterator[Item]:
    """Photo paths; in their place, what is wrong with a folder or a pattern."""
    for argument in arguments:
        if argument == "-":
            from edge.classify.workers import lines

            yield from _items(lines())
            continue
        wrong: list[PhotoError] = []
        try:
            for path in photos([argument], wrong.append):
                yield from wrong
                wrong.clear()
                yield path
        except PhotoError as error:
            wrong.append(error)
        yield from wrong


def _count(arguments: Sequence[str]) -> int | None:
    """How many photos the progress bar waits for; None when a pipe tells them."""
    if "-" in arguments:
        return None
    items = _items(arguments)
    return sum(1 for _ in (Once()(items) if len(arguments) > 1 else items))


def _workers(args: argparse.Namespace, first: Classifier) -> list[Classifier]:
    """One classifier for each worker, each with `--threads` threads (1)."""
    from edge.runtime import cores

    count = args.workers or max(cores() // (args.threads or 1), 1)
    with without_chatter():
        return [first, *(_opened(args, 1) for _ in range(count - 1))]


def _on_cluster(
    args: argparse.Namespace,
    classifier: Classifier,
    items: Iterator[Item],
    work: Callable[[Classifier, Item], _Answer],
) -> Iterator[_Answer]:
    """The same over a Ray cluster; the model and its labels travel with the job."""
    from edge.classify import ray
    from edge.runtime import read_model

    there = argparse.Namespace(**vars(args))
    there.model = read_model(args.model)
    there.labels = list(classifier.labels) if args.labels else None
    return ray.in_order(
        items,
        work,
        partial(_opened, there, 1),
        workers=args.workers,
        threads=args.threads or 1,
    )


def open_classifier(args: argparse.Namespace, threads: int | None = None) -> Classifier:
    """The classifier that the options of a verb ask for.

    `threads` is for the case that --threads is not given.
    """
    if args.threads and (remark := too_many(args.threads)):
        print(f"edgegraft: warning: {remark}", file=sys.stderr)
    with without_chatter():
        return _opened(args, threads)


def _opened(args: argparse.Namespace, threads: int | None) -> Classifier:
    if (args.mean is None) != (args.std is None):
        raise EdgegraftError("expected --mean and --std together, got one of them")
    normalize = None if args.mean is None else (args.mean, args.std)
    return Classifier(
        args.model,
        labels=args.labels,
        runtime=args.runtime,
        threads=args.threads or threads,
        xnnpack=args.xnnpack,
        delegate=args.delegate,
        normalize=normalize,
    )


def _one(classifier: Classifier, item: Item, *, top_k: int) -> _Answer:
    """One photo's answer; what is wrong with it instead."""
    if isinstance(item, PhotoError):
        return item
    try:
        return item, _timed(classifier, item, top_k)
    except PhotoError as error:
        return error


def _timed(
    classifier: Classifier, path: str, top_k: int
) -> tuple[Prediction, float, float]:
    """The prediction, and the milliseconds of decoding and of inference."""
    start = time.perf_counter()
    pixels = load_pixels(path, classifier.recipe)
    decoded = time.perf_counter()
    prediction = classifier.predict(pixels, top_k)
    done = time.perf_counter()
    return prediction, (decoded - start) * 1e3, (done - decoded) * 1e3


def _report(error: EdgegraftError) -> None:
    sys.stdout.flush()
    print(f"edgegraft: error: {error}", file=sys.stderr)
