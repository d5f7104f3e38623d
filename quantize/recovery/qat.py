"""Quantization-aware training: the weights learn to live with eight bits.

The calibrated graph itself is trained, rounded as TensorFlow Lite will round it
(graph), with the float network as the teacher: no labels, so a network cannot drift
away from what was validated. The loss is the squared error of the logits, and of the
features before the last layer relative to their variance. Probabilities teach little:
a fine-tuned network is sure of its training photos (distillation by logits: Ba and
Caruana 2014, arXiv:1312.6184). Random crops and mirror images of training photos only.

TensorFlow's own toolkit for this (tensorflow-model-optimization 0.8.1) works on Keras
layers: it refuses nested models, swish and squeeze-and-excite without a hand-written
configuration each, does not fold a frozen batch norm, and needs absl-py 1.4.

Training is the last rung: where channels of one tensor differ a thousandfold, it mends
less in minutes than equalizing does in seconds (`tests/benchmarks/ladder.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import EdgegraftError
from quantize.recovery.graph import Graph

STEPS = 150
BATCH = 16
# Of the root mean square of an output channel's weights, and step: a rate that means
# the same for every layer, whatever batch norm left of its scale. At 2e-4 training led
# away from weights that were rounded well; at this rate it helps the smaller of two
# networks (tests/benchmarks/int8_loss.py --qat).
RATE = 3e-5
_WARM_UP = 10  # steps
_TINY = 1e-6  # for a network whose features never vary
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

    `teacher`: the float network; the graph may have been repaired already. `pixels`:
    uint8 [N, H, W, 3], of which `rows` are the training photos. `output`: the
    signature's name of the probabilities.
    """
    from backbones.keras import keras, tensorflow

    tf = tensorflow()
    logits, features = _last(graph, graph.outputs[output])
    wanted_logits, wanted_features = _last(teacher, teacher.outputs[output])
    places = _trained(graph)
    scales = {place: _scale(graph, place) for place in places}
    offsets = {
        place: tf.Variable(np.zeros_like(graph.constants[place])) for place in places
    }
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
        return {
            place: graph.constants[place] + scales[place] * offsets[place]
            for place in places
        }

    @tf.function
    def step(images: Any) -> None:
        wanted = teacher.run(images)
        spread = tf.math.reduce_mean(
            tf.math.reduce_variance(wanted[wanted_features], axis=0)
        )
        with tf.GradientTape() as tape:
            student = graph.run(images, changed=changed(), fake_quant=True)
            error = student[logits] - wanted[wanted_logits]
            error -= tf.reduce_mean(error, axis=-1, keepdims=True)
            loss = tf.reduce_mean(tf.square(error))
            moved = tf.math.squared_difference(
                student[features], wanted[wanted_features]
            )
            loss += _FEATURES * tf.reduce_mean(moved) / (spread + _TINY)
        gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    draw = np.random.default_rng(seed)
    for number in range(steps):
        chosen = draw.choice(rows, min(BATCH, len(rows)), replace=False)
        step(_views(tf, pixels[np.sort(chosen)], draw))
        if progress is not None:
            progress(number + 1, steps)
    trained = {place: value.numpy() for place, value in changed().items()}
    graph.constants.update(trained)


def _views(tf: Any, photos: npt.NDArray[np.uint8], draw: np.random.Generator) -> Any:
    """A random crop of each photo, resized back, some mirrored: float32 [N, H, W, 3].

    A fine-tuned network is sure of its training photos as they are.
    """
    side = draw.uniform(_SMALLEST_CROP, 1.0, len(photos))
    top, left = draw.uniform(size=(2, len(photos))) * (1 - side)
    boxes = np.stack([top, left, top + side, left + side], 1)
    mirrored = draw.random(len(photos)) < 0.5
    boxes[mirrored] = boxes[mirrored][:, [0, 3, 2, 1]]
    return tf.image.crop_and_resize(
        tf.constant(photos, tf.float32),
        boxes.astype(np.float32),
        np.arange(len(photos), dtype=np.int32),
        photos.shape[1:3],
    )


def _trained(graph: Graph) -> list[int]:
    """Places of the weights and biases of convolutions and dense layers."""
    return [
        place
        for node in graph.nodes
        if node.weighted
        for place in node.inputs[1:3]
        if place in graph.constants
    ]


def _scale(graph: Graph, place: int) -> npt.NDArray[np.float32]:
    """The size of a step: the root mean square weight of each output channel."""
    array = graph.constants[place]
    node = graph.users(place)[0]
    if array.ndim < 2:  # a bias moves with the activations it is added to
        spread = float(np.sqrt(np.mean(np.square(array)))) or 1.0
        return np.full(array.shape, spread, np.float32)
    axes: tuple[int, ...] = (0, 1, 2) if node.kind == "DEPTHWISE_CONV_2D" else (1, 2, 3)
    if array.ndim == 2:
        axes = (1,)
    size = np.sqrt(np.mean(np.square(array), axis=axes, keepdims=True))
    return np.broadcast_to(np.maximum(size, 1e-8), array.shape).astype(np.float32)


def _last(graph: Graph, answer: int) -> tuple[int, int]:
    """Places of the logits and of the features that the last layer reads."""
    softmax = graph.producer(answer)
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
