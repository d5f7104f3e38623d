"""HTTP and RTSP cameras: still pictures, streams, and passwords.

OpenCV says of all failures only that it could not open the stream, and takes a still
picture for a stream of one frame.
"""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from urllib.parse import SplitResult, unquote, urlsplit

from edge.photo_kinds import HEAD_BYTES, begins_like_a_photo

TIMEOUT = 8.0  # seconds
MAX_BYTES = 32_000_000  # of a still picture
_RTSP_PORT = 554


def is_picture(url: str) -> bool:
    """Whether an http address answers with one picture, not with a stream."""
    try:
        with _opened(url) as response:
            if str(response.headers.get_content_type()).startswith("image/"):
                return True
            # not every camera says so; a stream has no length
            known = response.headers["Content-Length"] is not None
            return known and begins_like_a_photo(response.read(HEAD_BYTES))
    except (OSError, ValueError):
        return False


def fetch(url: str) -> bytes:
    """The picture behind an http address. OSError; ValueError for one too large."""
    with _opened(url) as response:
        content = bytes(response.read(MAX_BYTES + 1))
    if len(content) > MAX_BYTES:
        raise ValueError(f"expected a picture of at most {MAX_BYTES:,} bytes")
    return content


def refusal(url: str) -> str | None:
    """What is wrong with user and password, if that is why it cannot be opened."""
    parts = urlsplit(url)
    status = _rtsp_status(parts) if parts.scheme.startswith("rtsp") else _status(url)
    if status not in (401, 403):
        return None
    if parts.username is None:
        example = f"{parts.scheme}://USER:PASSWORD@{parts.hostname}/..."
        return f"it needs a user and a password: {example}"
    return "user or password is wrong, or may not see this stream"


def _opened(url: str):  # type: ignore[no-untyped-def]  # a response with headers
    """The response of an address; its user and password are sent as Basic or Digest."""
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
    return urllib.request.build_opener(*handlers).open(address, timeout=TIMEOUT)


def _status(url: str) -> int | None:
    try:
        with _opened(url) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return None


def _rtsp_status(parts: SplitResult) -> int | None:
    """The status that an RTSP server answers with where no password is given."""
    address = (parts.hostname or "", parts.port or _RTSP_PORT)
    where = f"{parts.scheme}://{address[0]}:{address[1]}{parts.path}"
    if parts.query:
        where += f"?{parts.query}"
    try:
        with socket.create_connection(address, TIMEOUT) as connection:
            connection.sendall(f"DESCRIBE {where} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
            words = connection.recv(200).split(None, 2)
        return int(words[1]) if words[0].startswith(b"RTSP/") else None
    except (OSError, ValueError, IndexError):
        return None
