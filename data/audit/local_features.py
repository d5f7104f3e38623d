"""SIFT keypoints of a photo, in a row of bytes of fixed size.

Up to `KEPT` keypoints (Lowe 2004; OpenCV's, the strongest first) of the grey picture
at `SIDE` pixels, each with its position and its RootSIFT descriptor (Arandjelovic and
Zisserman 2012). Photos of plain ground need the low contrast threshold; a photo of one
colour has no keypoints, so no near copies of it are found.
"""

import threading
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 224  # pixels of the longer side that keypoints are detected at: at 320 it takes
# twice as long and finds no more copies
MIN_SIDE = 160  # pixels of the longer side that smaller photos are enlarged to
KEPT = 160  # keypoints of a photo: 21 KB; 250 find no more copies
PLACE = 4  # bytes of x and y, each 0..65535 of the width and height
WIDE = 128  # bytes of a descriptor
ROW = (KEPT, PLACE + WIDE)
CONTRAST = 0.01  # OpenCV's default 0.04 leaves a sheet of paper without keypoints
UNIT = 512.0  # a descriptor of length 1 in steps of a byte; 255 is 0.5

Floats = npt.NDArray[Any]  # float32
Bytes = npt.NDArray[np.uint8]

_local = threading.local()  # OpenCV's detectors are not for several threads


@cache
def available() -> bool:
    """Whether OpenCV is installed."""
    return find_spec("cv2") is not None


def detect(grey: Image.Image) -> Bytes:
    """Keypoints of a grey picture: uint8 `ROW`, zeros where there are no more."""
    import cv2

    cv: Any = cv2  # its types do not name every detector
    scale = min(1.0, SIDE / max(grey.size)) if max(grey.size) >= MIN_SIDE else 0.0
    scale = scale or MIN_SIDE / max(grey.size)
    size = (max(8, round(grey.width * scale)), max(8, round(grey.height * scale)))
    if size != grey.size:
        resampling = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
        grey = grey.resize(size, resampling)
    if not hasattr(_local, "sift"):
        _local.sift = cv.SIFT_create(nfeatures=KEPT, contrastThreshold=CONTRAST)
    points, descriptors = _local.sift.detectAndCompute(np.asarray(grey), None)
    row = np.zeros(ROW, np.uint8)
    if descriptors is None:
        return row
    count = min(KEPT, len(points))
    root = np.sqrt(descriptors[:count])
    root /= np.maximum(np.linalg.norm(root, axis=1, keepdims=True), 1e-6)
    positions = np.array([point.pt for point in points[:count]]) / size
    positions = (positions.clip(0, 1) * 65535).round().astype("<u2")
    row[:count, :PLACE] = positions.view(np.uint8)
    row[:count, PLACE:] = (root * UNIT).round().clip(0, 255)
    return row


def places(rows: Bytes) -> Floats:
    """x and y [..., KEPT, 2] of keypoints, 0..1 of the width and the height."""
    integers = np.ascontiguousarray(rows[..., :PLACE]).view("<u2")
    positions: Floats = integers.astype(np.float32) / 65535
    return positions


def descriptors(rows: Bytes) -> Floats:
    """Descriptors [..., KEPT, WIDE] of length 1, or 0 where there is no keypoint."""
    vectors: Floats = rows[..., PLACE:].astype(np.float32) / UNIT
    return vectors


def mirrored(descriptors: Floats) -> Floats:
    """The descriptors that the mirrored photo has: 4 x 4 cells of 8 directions each,
    with the rows of cells and the directions in reverse."""
    cells = np.arange(WIDE).reshape(4, 4, 8)[::-1]
    return np.take(descriptors, cells[..., -np.arange(8) % 8].ravel(), axis=-1)
