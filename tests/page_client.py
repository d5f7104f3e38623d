"""A visitor of the page without a browser: Streamlit's own protocol.

Opens the websocket, uploads a file as the drop zone does, and reads the answer from
what the server sends. For the load benchmark, where twenty browsers would measure
themselves. It does not know: what the page looks like.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import requests
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

SECONDS = 60.0  # until a silent server counts as an error
_ANSWER = re.compile(
    r"<h2>([^<]*)(?:<b>(.*?)</b>)?.*?</h2>.*?<p[^>]*><span>(.*?)</span>", re.S
)


class Client:
    """One session; `ask` uploads a photo in place of the one before."""

    def __init__(self, address: str) -> None:
        self._http = requests.Session()
        self._http.get(f"{address}/_stcore/health", timeout=SECONDS).raise_for_status()
        self._http.get(f"{address}/_stcore/host-config", timeout=SECONDS)
        self._token = self._http.cookies.get("_streamlit_xsrf", "")
        self._address = address
        self._socket = connect(
            address.replace("http", "ws", 1) + "/_stcore/stream",
            subprotocols=["streamlit", *([self._token] if self._token else [])],  # type: ignore[list-item]
            additional_headers={"Cookie": f"_streamlit_xsrf={self._token}"},
            origin=address,  # type: ignore[arg-type]
            max_size=None,
            open_timeout=SECONDS,
        )
        self._session = ""
        self._page = ""
        self._uploader = ""
        self._number = 0
        self._last: Any = None
        self._rerun([])

    def close(self) -> None:
        self._socket.close()

    def ask(self, name: str, content: bytes) -> tuple[str, str]:
        """(label, percent) that the page shows; a refused photo has no percent."""
        info = self._upload(name, content)
        pieces = self._rerun([info])
        if self._last is not None:  # as the drop zone does with what it let go
            self._http.delete(
                self._address + self._last.delete_url,
                headers={"X-Xsrftoken": self._token},
                timeout=SECONDS,
            ).raise_for_status()
        self._last = info[2]
        for text in pieces:
            found = _ANSWER.search(text)
            if found:
                label, percent, shown = (
                    unescape(re.sub(r"<.*?>", "", part or "")).strip()
                    for part in found.groups()
                )
                if shown != name:
                    raise AssertionError(f"asked about {name}, was told of {shown}")
                return label, percent
        raise AssertionError(f"no answer for {name}: {pieces!r:.600}")

    def _upload(self, name: str, content: bytes) -> Any:
        self._number += 1
        wish = BackMsg()
        wish.file_urls_request.request_id = str(self._number)
        wish.file_urls_request.file_names.append(name)
        wish.file_urls_request.session_id = self._session
        self._socket.send(wish.SerializeToString())
        while True:
            message = self._receive()
            if message.WhichOneof("type") == "file_urls_response":
                break
        (urls,) = message.file_urls_response.file_urls
        self._http.put(
            self._address + urls.upload_url,
            files={name: (name, content, "image/jpeg")},
            headers={"X-Xsrftoken": self._token},
            timeout=SECONDS,
        ).raise_for_status()
        return (name, len(content), urls)

    def _rerun(self, files: list[Any]) -> list[str]:
        """Run the page with these files in its drop zone: all HTML it sent."""
        wish = BackMsg()
        wish.rerun_script.page_script_hash = self._page
        if self._uploader:
            state = wish.rerun_script.widget_states.widgets.add()
            state.id = self._uploader
            state.file_uploader_state_value.SetInParent()
            for name, size, urls in files:
                info = state.file_uploader_state_value.uploaded_file_info.add()
                info.name, info.size, info.file_id = name, size, urls.file_id
                info.file_urls.CopyFrom(urls)
        self._socket.send(wish.SerializeToString())
        pieces: list[str] = []
        while True:
            message = self._receive()
            kind = message.WhichOneof("type")
            if kind == "new_session":
                self._session = message.new_session.initialize.session_id
                self._page = message.new_session.page_script_hash
            elif kind == "delta":
                element = message.delta.new_element
                if element.WhichOneof("type") == "file_uploader":
                    self._uploader = element.file_uploader.id
                elif element.WhichOneof("type") == "html":
                    pieces.append(element.html.body)
                elif element.WhichOneof("type") == "exception":
                    raise AssertionError(element.exception.message)
            elif kind == "script_finished":
                return pieces

    def _receive(self) -> ForwardMsg:
        """A message; long ones that were sent before are only referred to."""
        content = self._socket.recv(timeout=SECONDS)
        message = ForwardMsg()
        message.ParseFromString(content)  # type: ignore[arg-type]
        return message
