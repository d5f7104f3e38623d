"""Bias correction: the mean error of each channel is subtracted from its layer's bias.

Rounded weights and clipped activations add noise and also move the mean of a channel,
in depthwise layers, with few weights a channel, most of all. The mean is known on the
calibration photos, so the bias can take it back (Nagel et al. 2019, arXiv:1906.04721,
section 4.2, measured on photos rather than derived). One pass from input to output:
each layer is corrected behind layers that already are. Noise that varies between
photos stays.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from quantize.recovery.graph import Graph


def correct(
    graph: Graph,
    photos: npt.NDArray[np.uint8],
    *,
    kept_float: Collection[str] = (),
) -> int:
    """Correct the biases of a calibrated graph in place; how many layers.

    `photos`: uint8 [N, H, W, 3], held in memory at once, with two activations of each.
    `kept_float`: names of tensors whose operators will not be rounded. The float form
    of a corrected graph is off by what was corrected: do this last.
    """
    from backbones.keras import tensorflow

    tf = tensorflow()
    constants: dict[int, Any] = {k: tf.constant(v) for k, v in graph.constants.items()}
    images = tf.constant(photos, tf.float32)
    exact: dict[int, Any] = {graph.image: images}
    coarse: dict[int, Any] = {graph.image: images}
    last = {place: node.number for node in graph.nodes for place in node.inputs}
    corrected = 0
    for node in graph.nodes:
        coarsely = graph.names[node.output] not in kept_float
        bias = node.inputs[2] if node.weighted and len(node.inputs) > 2 else -1
        if bias in graph.constants and len(graph.users(bias)) == 1:
            error = _mean(tf, graph.before(node, {**constants, **exact}))
            error -= _mean(
                tf, graph.before(node, {**constants, **coarse}, fake_quant=coarsely)
            )
            graph.constants[bias] = graph.constants[bias] + error.numpy()
            corrected += 1
        exact[node.output] = graph.one(node, {**constants, **exact})
        constants_now = {**constants, **coarse}
        if bias in graph.constants:
            constants_now[bias] = tf.constant(graph.constants[bias])
        coarse[node.output] = graph.one(node, constants_now, fake_quant=coarsely)
        for place in node.inputs:  # large, and not read again
            if last[place] == node.number:
                exact.pop(place, None)
                coarse.pop(place, None)
    return corrected


def _mean(tf: Any, value: Any) -> Any:
    """Of each channel."""
    return tf.reduce_mean(value, tuple(range(len(value.shape) - 1)))
