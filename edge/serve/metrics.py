"""What the server counts, as Prometheus reads it."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from itertools import accumulate

from edge.classifier import UNKNOWN

# Upper ends of the latency histogram, seconds: 1-2.5-5, as Prometheus recommends
BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """Counts since the start, as Prometheus reads them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = 0
        self._statuses: Counter[int] = Counter()
        self._labels: Counter[str] = Counter()
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def answered(self, label: str, seconds: float) -> None:
        """A photo: what it was called, and the time of decoding and inference."""
        with self._lock:
            self._labels[label] += 1
            self._seconds += seconds
            self._buckets[bisect_left(BUCKETS, seconds)] += 1

    def responded(self, status: int) -> None:
        """A request."""
        with self._lock:
            self.requests += 1
            self._statuses[status] += 1

    def text(self, labels: tuple[str, ...], waiting: int) -> str:
        """Prometheus' text format, version 0.0.4."""
        with self._lock:
            lines = _head("requests_total", "counter", "HTTP requests by status")
            lines += [
                f'edgegraft_requests_total{{status="{status}"}} {number}'
                for status, number in sorted(self._statuses.items())
            ]
            lines += _head("answers_total", "counter", "photos by label")
            lines += [
                f'edgegraft_answers_total{{label="{_escaped(label)}"}} '
                f"{self._labels[label]}"
                for label in dict.fromkeys((*labels, UNKNOWN))
            ]
            photos = sum(self._buckets)
            unknown = self._labels[UNKNOWN] / photos if photos else 0.0
            lines += _head("unknown_share", "gauge", "share of photos called unknown")
            lines.append(f"edgegraft_unknown_share {unknown:.6g}")
            lines += _head("waiting", "gauge", "requests that wait for the model")
            lines.append(f"edgegraft_waiting {waiting}")
            name = "photo_seconds"
            lines += _head(name, "histogram", "decoding and inference of a photo")
            for end, total in zip(BUCKETS, accumulate(self._buckets), strict=False):
                lines.append(f'edgegraft_{name}_bucket{{le="{end}"}} {total}')
            lines.append(f'edgegraft_{name}_bucket{{le="+Inf"}} {photos}')
            lines.append(f"edgegraft_{name}_sum {self._seconds:.6f}")
            lines.append(f"edgegraft_{name}_count {photos}")
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP edgegraft_{name} {text}", f"# TYPE edgegraft_{name} {kind}"]


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
