"""A window with the camera's frames and the predicted label.

Tk, which comes with Python, so OpenCV's headless build is enough for the rest. Frames
are shown as the model gets them, not mirrored. Needs a display.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from PIL import Image

from edge.camera.sources import Picture
from edge.errors import EdgegraftError

LARGEST = (960, 720)  # pixels of the picture in the window
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


class Preview:
    """An open window. EdgegraftError where there is no display."""

    def __init__(self, title: str) -> None:
        if sys.platform == "linux" and not any(map(os.environ.get, _DISPLAYS)):
            raise EdgegraftError(
                "--preview: expected a display, found none ($DISPLAY is empty); run it "
                "on the desktop (over the network: ssh -X), or leave --preview out"
            )
        try:
            import tkinter

            from PIL import ImageTk
        except ImportError as error:
            raise EdgegraftError(
                f"--preview: no window can be made ({error}); run: sudo apt install "
                "python3-tk python3-pil.imagetk"
            ) from None
        try:
            self._window = tkinter.Tk()
        except tkinter.TclError as error:
            raise EdgegraftError(f"--preview: {error}") from None
        self._photo_of = ImageTk.PhotoImage
        self._photo: Any = None  # Tk does not keep it
        self._open = True
        self._window.title(title)
        self._window.protocol("WM_DELETE_WINDOW", self._stop)
        self._label = tkinter.Label(
            self._window, compound="top", font=("TkDefaultFont", 20)
        )
        self._label.pack()

    def show(self, frame: Picture, text: str) -> bool:
        """A frame, uint8 RGB [height, width, 3], and a line; False once closed."""
        if self._open:
            image = Image.fromarray(frame)
            image.thumbnail(LARGEST)
            self._photo = self._photo_of(image, master=self._window)
            self._label.configure(image=self._photo, text=text)
            self._window.update()
        return self._open

    def close(self) -> None:
        self._open = False
        self._window.destroy()

    def _stop(self) -> None:
        self._open = False
