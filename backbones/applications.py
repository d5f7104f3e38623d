"""All backbones of Keras Applications: MobileNet v1 to v3, EfficientNet, NASNet.

The networks are tf-keras's own; the weights are loaded by `backbones.weights`, so
that a read-only or hand-filled cache folder works too. None of them scales its input
itself: `network.SCALING` does, with the numbers of the record.

Does not know: where weights lie, heads, training.
"""

from backbones import efficientnet, mobilenet, nasnet

RECORDS = (*mobilenet.RECORDS, *efficientnet.RECORDS, *nasnet.RECORDS)
