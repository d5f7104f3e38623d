"""Quantization-aware training by TensorFlow's own toolkit, in its own environment.

Called by tests/benchmarks/int8_loss.py --tfmot with a folder and a number of epochs.
The folder holds the fine-tuned network (backbone.json, weights.npz) and photos with
their scaling (photos.npz). As the toolkit's guide has it: every layer is annotated,
trained with the labels at a small rate, converted; batch norm stays frozen, as it was
fine-tuned (trained, it lost three times as much). It sees random crops and mirror
images. Leaves the probabilities of the test photos in answers.npy and prints a line of
JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

BATCH, RATE = 16, 1e-5


def main(work: str, epochs: str) -> None:
    folder = Path(work)
    with np.load(folder / "photos.npz") as stored:
        train, truth, test = (stored[name] for name in ("train", "truth", "test"))
        scale, offset = stored["scale"], stored["offset"]
    with np.load(folder / "weights.npz") as stored:
        weights = [stored[name] for name in stored.files]
    backbone = keras.models.model_from_json((folder / "backbone.json").read_text())
    logits = keras.layers.Dense(weights[-1].size)(backbone.output)
    model = keras.Model(backbone.input, keras.layers.Softmax()(logits))
    model.set_weights(weights)
    for layer in model.layers:  # as the network was fine-tuned
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    random = np.random.default_rng(0)
    begin = time.monotonic()
    trained = tfmot.quantization.keras.quantize_model(model)
    trained.compile(keras.optimizers.Adam(RATE), "sparse_categorical_crossentropy")
    for _ in range(int(epochs)):
        order = random.permutation(len(train))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            images = views(train[rows], random) * scale + offset
            trained.train_on_batch(images, truth[rows])
    seconds = time.monotonic() - begin
    converter = tf.lite.TFLiteConverter.from_keras_model(trained)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    content = converter.convert()
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    image = interpreter.get_input_details()[0]["index"]
    answer = interpreter.get_output_details()[0]["index"]
    found = []
    for photo in test:
        scaled = photo[None].astype(np.float32) * scale + offset
        interpreter.set_tensor(image, scaled.astype(np.float32))
        interpreter.invoke()
        found.append(interpreter.get_tensor(answer)[0])
    np.save(folder / "answers.npy", np.array(found))
    print(
        json.dumps(
            {
                "seconds": round(seconds, 1),
                "bytes": len(content),
                "tfmot": tfmot.__version__,
                "tensorflow": tf.__version__,
            }
        )
    )


def views(photos: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A random crop of each photo, resized back, some mirrored: float32."""
    side = random.uniform(0.75, 1.0, len(photos))
    top, left = random.uniform(size=(2, len(photos))) * (1 - side)
    boxes = np.stack([top, left, top + side, left + side], 1)
    mirrored = random.random(len(photos)) < 0.5
    boxes[mirrored] = boxes[mirrored][:, [0, 3, 2, 1]]
    return tf.image.crop_and_resize(
        tf.constant(photos, tf.float32),
        boxes.astype(np.float32),
        np.arange(len(photos), dtype=np.int32),
        photos.shape[1:3],
    ).numpy()


if __name__ == "__main__":
    main(*sys.argv[1:])
