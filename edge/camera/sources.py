"""Where frames come from: webcams, the Pi camera, video files, network streams.

Every source has the methods of `Source`; `find` decides which one a word means. OpenCV
and picamera2 are imported only when such a source is opened. Nothing is mirrored: the
model gets what the camera sees.

OpenCV says of every stream that fails only that it could not open it, and takes a still
picture for a stream of one frame. So still pictures, and refused passwords, are found
out here, by asking the camera over HTTP or RTSP.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge.errors import EdgegraftError
from edge.files import read_or_empty

if TYPE_CHECKING:
    from urllib.parse import SplitResult

Picture = npt.NDArray[np.uint8]  # RGB [height, width, 3]

NETWORK = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://")
_DEVICES = "/sys/class/video4linux"
INSTALL_OPENCV = (
    "pip install opencv-python-headless (a packed folder: pip install -r "
    "requirements-camera.txt)"
)
_TIMEOUT_MS = 8_000  # for a network stream, before it counts as lost
SNAPSHOT_PAUSE = 0.5  # seconds between two pictures, where no --fps is given
MAX_PAUSE = 10.0  # seconds; longer, and the source would count as stuck
_NO_AV1 = (
    "AV1 video, and this OpenCV has no decoder for it; set the camera to H.264, or "
    "convert the file: ffmpeg -i IN -c:v libx264 OUT.mp4"
)
_PI_SIZE = (640, 480)  # of the Pi camera when no size is asked for
_RTSP_PORT = 554
_WEB_TIMEOUT = 8.0  # seconds
_MAX_BYTES = 32_000_000  # of a still picture


class SourceError(EdgegraftError):
    """A source that cannot be opened, and how to mend it."""


class Source:
    """Frames, one after another; a source may be opened again after `close`.

    `grab` passes to the next frame, `retrieve` converts it to pixels: frames that are
    not looked at cost no conversion.
    """

    name: str
    live: bool  # frames pass whether they are read or not

    def open(self) -> None:
        """SourceError when it cannot be opened."""
        raise NotImplementedError

    def grab(self) -> bool:
        """Take the next frame; False at the end, or when the source is lost."""
        raise NotImplementedError

    def retrieve(self) -> Picture | None:
        """The frame taken last, uint8 RGB [height, width, 3]; None if damaged."""
        raise NotImplementedError

    def read(self) -> Picture | None:
        """The next frame; None at the end, or when the source is lost."""
        return self.retrieve() if self.grab() else None

    def close(self) -> None:
        """Release it; more than once is fine."""
        raise NotImplementedError


def find(target: str | None, size: tuple[int, int] | None, live: bool) -> Source:
    """The source of a number, a path, a URL, or a part of a camera's name.

    None is the first camera there is. With `live` a video file is played again and
    again at its own speed, as if it were a camera.
    """
    if target is None:
        if devices := cameras():
            return Capture(devices[0][0], size=size)
        if _has_picamera():
            return PiCamera(0, size)
        raise SourceError(
            "no camera found: expected a webcam (/dev/video*) or a Pi camera "
            "(apt install python3-picamera2); or name a video file or a stream"
        )
    if target.startswith("picamera"):
        _, _, index = target.partition(":")
        if index and not index.isdigit():
            raise SourceError(f"{target}: expected picamera or picamera:NUMBER")
        return PiCamera(int(index or 0), size)
    if target.lower().startswith(("http://", "https://")):
        return WebCamera(target, size)
    if target.isdigit():
        target = f"/dev/video{target}"
    if target.startswith("/dev/") or target.lower().startswith(NETWORK):
        return Capture(target, size=size)
    if os.path.exists(target) or "." in target or os.sep in target:
        return Video(target, live)
    devices = cameras()
    for path, name in devices:
        if target.lower() in name.lower():
            return Capture(path, size=size)
    names = ", ".join(f"{path} {name!r}" for path, name in devices) or "no cameras"
    raise SourceError(f"no camera whose name contains {target!r}; there are {names}")


def cameras() -> list[tuple[str, str]]:
    """(path, name) of the webcams; a camera's further nodes (metadata) are left out."""
    devices = []
    nodes = os.listdir(_DEVICES) if os.path.isdir(_DEVICES) else []
    for node in sorted(nodes, key=lambda name: (len(name), name)):
        folder = os.path.join(_DEVICES, node)
        if read_or_empty(os.path.join(folder, "index")).strip() in ("", "0"):
            name = read_or_empty(os.path.join(folder, "name")).strip() or "camera"
            devices.append((f"/dev/{node}", name))
    return devices


class _OpenCVSource(Source):
    """A `cv2.VideoCapture`, opened by subclasses."""

    _capture: Any = None

    def retrieve(self) -> Picture | None:
        if self._capture is None:
            return None
        complete, frame = self._capture.retrieve()
        if not complete or frame is None or frame.ndim != 3:
            return None
        cv2 = opencv()
        picture: Picture = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        return picture

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None


class Capture(_OpenCVSource):
    """A webcam or a network stream, through OpenCV."""

    live = True

    def __init__(self, target: str, *, size: tuple[int, int] | None = None) -> None:
        self.name = target
        self._size = size

    def open(self) -> None:
        cv2 = opencv()
        if self.name.startswith("/dev/"):
            self._check_device()
            self._capture = cv2.VideoCapture(self.name, cv2.CAP_V4L2)
            reason = "not a camera, or in use by another program (fuser -v shows it)"
        else:
            timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS]
            timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
            self._capture = cv2.VideoCapture(self.name, cv2.CAP_FFMPEG, timeouts)
            reason = "the stream cannot be opened: wrong address, or it is not sending"
        if not self._capture.isOpened():
            self.close()
            if not self.name.startswith("/dev/"):
                reason = _password_problem(self.name) or reason
            raise SourceError(f"{_without_password(self.name)}: {reason}")
        if _is_av1(self._capture) and not self._capture.grab():
            self.close()
            raise SourceError(f"{_without_password(self.name)}: {_NO_AV1}")
        if self._size:
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._size[0])
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._size[1])
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def grab(self) -> bool:
        return bool(self._capture is not None and self._capture.grab())

    def _check_device(self) -> None:
        if not os.path.exists(self.name):
            paths = ", ".join(path for path, _ in cameras()) or "no cameras"
            raise SourceError(f"{self.name}: no such camera; there are {paths}")
        if not os.access(self.name, os.R_OK | os.W_OK):
            raise SourceError(
                f"{self.name}: permission denied; run: sudo usermod -aG video $USER, "
                "then log in again"
            )


class Snapshot(Source):
    """An address that answers with a picture, asked again and again."""

    live = True

    def __init__(self, url: str, pause: float) -> None:
        self.name = url
        self._pause = pause
        self._due = 0.0
        self._content = b""

    def open(self) -> None:
        self._due = 0.0
        if not self.grab():
            raise SourceError(
                f"{_without_password(self.name)}: expected a picture, got no answer"
            )
        self._due = 0.0  # that first one is not shown: the next is newer

    def grab(self) -> bool:
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._due = time.monotonic() + self._pause
        try:
            self._content = _fetch(self.name)
        except (OSError, ValueError):
            return False
        return True

    def retrieve(self) -> Picture | None:
        from edge.errors import PhotoError
        from edge.preprocess import open_photo

        try:
            return np.asarray(open_photo(self._content))
        except PhotoError:
            return None

    def close(self) -> None:
        self._content = b""


class WebCamera(Source):
    """An http address: a stream or, found out by what it answers, a `Snapshot`.

    pause: seconds between two pictures of a `Snapshot`.
    """

    live = True
    pause = SNAPSHOT_PAUSE

    def __init__(self, url: str, size: tuple[int, int] | None) -> None:
        self.name = _without_password(url)
        self._url = url
        self._grabbed = 0
        self._source: Source = Capture(url, size=size)

    def open(self) -> None:
        self._grabbed = 0
        try:
            self._source.open()
        except SourceError:
            if isinstance(self._source, Snapshot) or not _is_picture(self._url):
                raise
            self._become_snapshot()

    def grab(self) -> bool:
        if self._source.grab():
            self._grabbed += 1
            return True
        if isinstance(self._source, Snapshot) or self._grabbed > 1:
            return False
        if not _is_picture(self._url):
            return False
        self._become_snapshot()
        return self._source.grab()

    def _become_snapshot(self) -> None:
        self._source.close()
        self._source = Snapshot(self._url, self.pause)
        self._source.open()

    def retrieve(self) -> Picture | None:
        return self._source.retrieve()

    def close(self) -> None:
        self._source.close()


class Video(_OpenCVSource):
    """A video file: every frame once; when `live`, again and again at its speed."""

    def __init__(self, path: str, live: bool = False) -> None:
        self.name, self.live = path, live
        self.rate = 0.0  # frames a second, as the file says
        self.frames = 0  # as the file says; 0 when it does not
        self.seconds = 0.0  # position of the frame grabbed last
        self.is_av1 = False
        self._grabbed = 0
        self._due = 0.0

    def open(self) -> None:
        cv2 = opencv()
        if os.path.isdir(self.name):
            raise SourceError(f"{self.name}: expected a video, got a folder")
        try:
            open(self.name, "rb").close()
        except OSError as error:
            raise SourceError(f"{self.name}: {error.strerror or error}") from None
        self._capture = cv2.VideoCapture(self.name)
        if not self._capture.isOpened():
            self.close()
            raise SourceError(
                f"{self.name}: expected a video, got something else or a damaged file"
            )
        self.is_av1 = _is_av1(self._capture)
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.rate = rate if 0 < rate < 1000 else 25.0
        self.frames = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        self._grabbed, self.seconds = 0, 0.0
        self._due = time.monotonic()

    def grab(self) -> bool:
        if self._capture is None:
            return False
        if not self._capture.grab():
            if not self.live:
                return False
            self.close()
            try:
                self.open()  # from the start again
            except SourceError:
                return False
            if not self._capture.grab():
                return False
        self._grabbed += 1
        if self.live:
            self._due += 1 / self.rate
            time.sleep(max(0.0, min(self._due - time.monotonic(), 1.0)))
        else:
            self._set_position()
        return True

    def why_no_frame(self) -> str:
        """What to say where not one frame can be read."""
        return _NO_AV1 if self.is_av1 else "expected a video, no frame can be read"

    def _set_position(self) -> None:
        """The frame's own time (phones record at uneven rates), else by the rate."""
        timestamp = float(self._capture.get(opencv().CAP_PROP_POS_MSEC)) / 1000
        if timestamp > self.seconds or (self._grabbed == 1 and timestamp >= 0):
            self.seconds = timestamp
        else:
            self.seconds = max((self._grabbed - 1) / self.rate, self.seconds)


class PiCamera(Source):
    """The Raspberry Pi's own camera, through picamera2 (libcamera)."""

    live = True

    def __init__(self, index: int, size: tuple[int, int] | None) -> None:
        self.name = f"picamera:{index}"
        self._index, self._size = index, size or _PI_SIZE
        self._camera: Any = None
        self._frame: Picture | None = None

    def open(self) -> None:
        try:
            from picamera2 import Picamera2
        except ImportError as error:
            raise SourceError(
                f"{self.name}: picamera2 cannot be imported ({error}); run: sudo apt "
                "install python3-picamera2, and make the environment with "
                "python3 -m venv --system-site-packages"
            ) from None
        try:
            self._camera = Picamera2(self._index)
            # picamera2 names the bytes in memory backwards: this is RGB
            main = {"size": self._size, "format": "BGR888"}
            self._camera.configure(self._camera.create_video_configuration(main=main))
            self._camera.start()
        except (RuntimeError, IndexError, OSError) as error:
            self.close()
            raise SourceError(
                f"{self.name}: {error or 'no such camera'} (is the cable in, is "
                "another program using it? rpicam-hello shows it)"
            ) from None

    def grab(self) -> bool:
        self._frame = self._camera.capture_array("main")
        return True

    def retrieve(self) -> Picture | None:
        return self._frame

    def close(self) -> None:
        if self._camera is not None:
            self._camera.close()
            self._camera = None


def opencv() -> Any:
    """The module cv2, quiet; SourceError with what to install where it is missing."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    try:
        import cv2
    except ImportError as error:
        raise SourceError(
            f"OpenCV is needed for this source ({error}); run: {INSTALL_OPENCV}"
        ) from None
    return cv2


def _is_av1(capture: Any) -> bool:
    code = int(capture.get(opencv().CAP_PROP_FOURCC))
    return code.to_bytes(4, "little", signed=code < 0).lower() == b"av01"


def _has_picamera() -> bool:
    from importlib.util import find_spec

    return find_spec("picamera2") is not None


def _without_password(url: str) -> str:
    scheme, separator, address = url.partition("://")
    return scheme + separator + address.rpartition("@")[2] if separator else url


def _is_picture(url: str) -> bool:
    """Whether an http address answers with one picture, not with a stream."""
    from edge.photo_kinds import HEAD_BYTES, begins_like_a_photo

    try:
        with _opened(url) as response:
            if str(response.headers.get_content_type()).startswith("image/"):
                return True
            # not every camera says so; a stream has no length
            known = response.headers["Content-Length"] is not None
            return known and begins_like_a_photo(response.read(HEAD_BYTES))
    except (OSError, ValueError):
        return False


def _fetch(url: str) -> bytes:
    """The picture behind an http address. OSError; ValueError for one too large."""
    with _opened(url) as response:
        content = bytes(response.read(_MAX_BYTES + 1))
    if len(content) > _MAX_BYTES:
        raise ValueError(f"expected a picture of at most {_MAX_BYTES:,} bytes")
    return content


def _password_problem(url: str) -> str | None:
    """What is wrong with user and password, if that is why it cannot be opened."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    is_rtsp = parts.scheme.startswith("rtsp")
    status = _rtsp_status(parts) if is_rtsp else _http_status(url)
    if status not in (401, 403):
        return None
    if parts.username is None:
        example = f"{parts.scheme}://USER:PASSWORD@{parts.hostname}/..."
        return f"it needs a user and a password: {example}"
    return "user or password is wrong, or may not see this stream"


def _opened(url: str):  # type: ignore[no-untyped-def]  # a response with headers
    """The response of an address; its user and password are sent as Basic or Digest."""
    import urllib.request
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    netloc = f"{host}:{parts.port}" if parts.port else host
    address = parts._replace(netloc=netloc).geturl()
    handlers: list[urllib.request.BaseHandler] = []
    if parts.username is not None:
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        user, password = unquote(parts.username), unquote(parts.password or "")
        passwords.add_password(None, address, user, password)
        handlers = [
            urllib.request.HTTPDigestAuthHandler(passwords),
            urllib.request.HTTPBasicAuthHandler(passwords),
        ]
    return urllib.request.build_opener(*handlers).open(address, timeout=_WEB_TIMEOUT)


def _http_status(url: str) -> int | None:
    import urllib.error

    try:
        with _opened(url) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return None


def _rtsp_status(parts: SplitResult) -> int | None:
    """The status that an RTSP server answers with where no password is given."""
    import socket

    address = (parts.hostname or "", parts.port or _RTSP_PORT)
    where = f"{parts.scheme}://{address[0]}:{address[1]}{parts.path}"
    if parts.query:
        where += f"?{parts.query}"
    try:
        with socket.create_connection(address, _WEB_TIMEOUT) as connection:
            connection.sendall(f"DESCRIBE {where} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
            words = connection.recv(200).split(None, 2)
        return int(words[1]) if words[0].startswith(b"RTSP/") else None
    except (OSError, ValueError, IndexError):
        return None
