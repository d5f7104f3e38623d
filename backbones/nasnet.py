"""NASNet-Mobile (4 @ 1056) of Keras Applications.

Source: Zoph et al. 2018, arXiv:1707.07012. Accuracy: the table of
keras.io/api/applications.

Does not know: where weights lie, heads, training.
"""

from __future__ import annotations

from typing import Any

from backbones.keras import keras
from backbones.record import Backbone, Published


def _build(size: int, _: Any) -> Any:
    return keras().applications.NASNetMobile(
        input_shape=(size, size, 3), include_top=False, weights=None, pooling="avg"
    )


RECORDS = (
    Backbone(
        name="nasnet_mobile",
        family="nasnet",
        build=_build,
        scale=1 / 127.5,
        offset=-1.0,
        default_size=224,
        min_size=32,
        top="reduction_conv_1_reduce_8",
        imagenet=Published(
            file="nasnet_mobile_no_top.h5",
            remote="NASNet-mobile-no-top.h5",
            address="https://storage.googleapis.com/tensorflow/keras-applications/"
            "nasnet/",
            sizes=(224,),
            source="Keras Applications",
            licence="Apache-2.0",
        ),
        accuracy=74.4,
        accuracy_source="keras.io/api/applications",
        parameters=4_269_716,
        multiply_adds=562_582_816,
        int8="fair",
        int8_reason="ReLU, but many additions and concatenations of unlike ranges",
    ),
)
