"""Switch a GPIO pin while the camera sees a label, on a Raspberry Pi.

    python examples/camera_gpio.py MODEL LABEL [PIN]

Needs OpenCV and gpiozero (both come with Raspberry Pi OS as python3-opencv and
python3-gpiozero). Ends with Ctrl-C; the pin is then off.
"""

import itertools
import sys

import cv2
from gpiozero import LED

import edgegraft

CONFIDENT = 0.8  # probability from which the pin is switched on


def main(
    model_file: str, label: str, pin: str = "17", frames: int | None = None
) -> None:
    model = edgegraft.load(model_file)
    camera = cv2.VideoCapture(0)
    light = LED(int(pin))
    try:
        for _ in range(frames) if frames else itertools.count():
            there, frame = camera.read()
            if not there:
                raise SystemExit("the camera sends no frames")
            rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            prediction = model.classify(rgb)
            if prediction.label == label and prediction.probability >= CONFIDENT:
                light.on()
            else:
                light.off()
    finally:
        light.off()
        camera.release()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
