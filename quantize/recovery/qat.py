"""Quantization-aware training with the float network as the teacher.

The calibrated graph itself is trained, rounded as in TensorFlow Lite (graph), without
labels, so that the network cannot drift from the validated one. The loss is the squared
error of the logits, and of the features before the last layer relative to their
variance. Probabilities say little, since a fine-tuned network is confident on its
training photos (distillation by logits: Ba and Caruana 2014, arXiv:1312.6184). It sees
random crops and mirror images of training photos only.

TensorFlow's own toolkit for this (tensorflow-model-optimization 0.8.1) works on Keras
layers: it refuses nested models, swish and squeeze-and-excite without a hand-written
configuration each, needs absl-py 1.4, and its ranges follow the photos so slowly that
minutes are too few (`tests/benchmarks/int8_loss.py --tfmot`: 6 to 21 points lost).

Training is the last rung: where the ranges of channels differ a thousandfold, it gains
less in minutes than equalization in seconds (`tests/benchmarks/ladder.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.keras import keras, tensorflow
from edge.errors import EdgegraftError
from quantize.recovery.graph import Graph

STEPS = 150
BATCH = 16
# A step, relative to the root mean square of an output channel's weights, so that it is
# the same for every layer. At 2e-4 training made well rounded weights worse; at this
# rate it helps the smaller of two networks (tests/benchmarks/int8_loss.py --qat).
RATE = 3e-5
_WARM_UP = 10  # steps
_TINY = 1e-6  # for features of zero variance
_SMALLEST_CROP = 0.75  # side of a view
_FEATURES = 1.0  # weight of the features' squared error, relative to their variance

Advance = Callable[[int, int], None]


def train(
    graph: Graph,
    teacher: Graph,
    pixels: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    output: str,
    *,
    seed: int = 0,
    steps: int = STEPS,
    rate: float = RATE,
    progress: Advance | None = None,
) -> None:
    """Train the weights of a calibrated graph in place.

    `teacher`: the float network; the graph may be repaired already. `pixels`: uint8
    [N, H, W, 3], of which `rows` are the training photos. `output`: the signature's
    name of the probabilities.
    """
    tf = tensorflow()
    logits, features = _logits_and_features(graph, graph.outputs[output])
    teacher_logits, teacher_features = _logits_and_features(
        teacher, teacher.outputs[output]
    )
    trained = [  # weights and biases of convolutions and dense layers
        tensor
        for node in graph.nodes
        if node.weighted
        for tensor in node.inputs[1:3]
        if tensor in graph.constants
    ]
    scales = {tensor: _scale(graph, tensor) for tensor in trained}
    offsets = {t: tf.Variable(np.zeros_like(graph.constants[t])) for t in trained}
    rate = keras().optimizers.schedules.CosineDecay(
        rate / 10,
        max(1, steps - _WARM_UP),
        alpha=0.02,
        warmup_target=rate,
        warmup_steps=_WARM_UP,
    )
    optimizer = keras().optimizers.Adam(rate)
    variables = list(offsets.values())
    optimizer.build(variables)

    def changed() -> dict[int, Any]:
        return {t: graph.constants[t] + scales[t] * offsets[t] for t in trained}

    @tf.function
    def step(images: Any) -> None:
        exact = teacher.run(images)
        variance = tf.math.reduce_mean(
            tf.math.reduce_variance(exact[teacher_features], axis=0)
        )
        with tf.GradientTape() as tape:
            student = graph.run(images, changed=changed(), fake_quant=True)
            error = student[logits] - exact[teacher_logits]
            error -= tf.reduce_mean(error, axis=-1, keepdims=True)
            loss = tf.reduce_mean(tf.square(error))
            feature_errors = tf.math.squared_difference(
                student[features], exact[teacher_features]
            )
            loss += _FEATURES * tf.reduce_mean(feature_errors) / (variance + _TINY)
        gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    random = np.random.default_rng(seed)
    for done in range(1, steps + 1):
        batch = random.choice(rows, min(BATCH, len(rows)), replace=False)
        step(_views(tf, pixels[np.sort(batch)], random))
        if progress is not None:
            progress(done, steps)
    graph.constants.update({t: value.numpy() for t, value in changed().items()})


def _views(tf: Any, photos: npt.NDArray[np.uint8], random: np.random.Generator) -> Any:
    """A random crop of each photo, resized back, some mirrored: float32."""
    side = random.uniform(_SMALLEST_CROP, 1.0, len(photos))
    top, left = random.uniform(size=(2, len(photos))) * (1 - side)
    boxes = np.stack([top, left, top + side, left + side], 1)
    mirrored = random.random(len(photos)) < 0.5
    boxes[mirrored] = boxes[mirrored][:, [0, 3, 2, 1]]
    return tf.image.crop_and_resize(
        tf.constant(photos, tf.float32),
        boxes.astype(np.float32),
        np.arange(len(photos), dtype=np.int32),
        photos.shape[1:3],
    )


def _scale(graph: Graph, tensor: int) -> npt.NDArray[np.float32]:
    """The size of a step: the root mean square weight of each output channel."""
    array = graph.constants[tensor]
    node = graph.users(tensor)[0]
    if array.ndim < 2:  # a bias
        rms = float(np.sqrt(np.mean(np.square(array)))) or 1.0
        return np.full(array.shape, rms, np.float32)
    axes: tuple[int, ...] = (0, 1, 2) if node.kind == "DEPTHWISE_CONV_2D" else (1, 2, 3)
    if array.ndim == 2:
        axes = (1,)
    rms = np.sqrt(np.mean(np.square(array), axis=axes, keepdims=True))
    return np.broadcast_to(np.maximum(rms, 1e-8), array.shape).astype(np.float32)


def _logits_and_features(graph: Graph, probabilities: int) -> tuple[int, int]:
    """Indices of the logits and of the features that the last layer reads."""
    softmax = graph.producer(probabilities)
    if softmax is None or softmax.kind != "SOFTMAX":
        raise EdgegraftError(
            "expected a network that ends in a softmax, got "
            f"{softmax.kind if softmax else 'nothing'}"
        )
    node = graph.producer(softmax.inputs[0])
    while node is not None and not node.weighted:
        node = graph.producer(node.inputs[0])
    if node is None:
        raise EdgegraftError("expected a network with a layer of weights, got none")
    return softmax.inputs[0], node.inputs[0]
