"""The network of a run: built from its settings, run over photos, stored as weights.

The network is rebuilt from run.json through `backbones`; only arrays are read from the
run, after their shapes have been compared. So a run from another person can hold wrong
numbers, but no program.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import custom_cnn, network, registry, weights
from backbones.keras import keras, tensorflow
from data.store import release
from edge.errors import EdgegraftError
from edge.files import write_atomic
from finetune.run import OLD_NETWORK, Run
from finetune.settings import Settings

BATCH = 64  # photos in memory as floats
BFLOAT16_FROM = 8, 0  # compute capability of GPUs with bfloat16 units
_SLACK = 4096  # bytes of an array's header in a .npz
_OLD_PARTS = {"metadata.json", "config.json", "model.weights.h5"}


def build(settings: Settings, classes: int, origin: weights.Origin) -> Any:
    """The network with its initial weights.

    A backbone with random weights trains with batch norm in training mode.
    """
    model = _assemble(settings, classes, frozen=origin.path is not None)
    record = registry.get(settings.backbone)
    weights.load(model.get_layer(network.BACKBONE), record, origin)
    return model


def _assemble(settings: Settings, classes: int, *, frozen: bool) -> Any:
    record, options = registry.get(settings.backbone), None
    if record.options is not None:
        options = custom_cnn.from_mapping(settings.cnn or {}, "run.json")
    keras().backend.reset_uids()  # the same layer names, and files, each time
    return network.assemble(record, settings.size, classes, options, frozen=frozen)


# -- precision -------------------------------------------------------------------------
def policy_for(precision: str) -> str:
    """The Keras policy of `--precision`: float32 or mixed_bfloat16.

    Mixed precision (Micikevicius et al. 2018, arXiv:1710.03740): weights and losses in
    float32, the layers between in bfloat16, whose range needs no loss scaling. "auto"
    selects it on GPUs with bfloat16 units (NVIDIA's compute capability 8 and later). On
    CPUs a step of MobileNetV2 took up to three times as long.
    """
    mixed = precision == "bfloat16" or (precision == "auto" and _gpus_have_bfloat16())
    return "mixed_bfloat16" if mixed else "float32"


def _gpus_have_bfloat16() -> bool:
    config = tensorflow().config
    gpus = config.list_physical_devices("GPU")
    details = [config.experimental.get_device_details(gpu) for gpu in gpus]
    return bool(gpus) and all(
        tuple(gpu.get("compute_capability", (0, 0))) >= BFLOAT16_FROM for gpu in details
    )


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    """Layers built inside use this Keras dtype policy."""
    mixed = keras().mixed_precision
    before = mixed.global_policy()
    mixed.set_global_policy(name)
    try:
        yield
    finally:
        mixed.set_global_policy(before)


# -- outputs over many photos ----------------------------------------------------------
class Forward:
    """A network in inference mode, traced once however often its weights change."""

    def __init__(self, model: Any) -> None:
        tf = tensorflow()
        spec = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)

        @tf.function(input_signature=[spec])
        def run(images: Any) -> Any:
            output = model(tf.cast(images, tf.float32), training=False)
            return tf.cast(output, tf.float32)

        self._run = run

    def compute(
        self,
        array: npt.NDArray[np.uint8],
        rows: Sequence[int] | npt.NDArray[np.int64],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> npt.NDArray[np.float32]:
        """The output for these rows of uint8 [N, H, W, 3]: float32 [len(rows), D].

        Only one batch of floats is in memory at a time.
        """
        rows = np.asarray(rows)
        outputs = []
        for start in range(0, len(rows), BATCH):
            batch = array[rows[start : start + BATCH]]
            release(array)
            outputs.append(self._run(batch).numpy())
            if progress:
                progress(min(start + BATCH, len(rows)), len(rows))
        return np.concatenate(outputs)


def compute_outputs(
    model: Any,
    array: npt.NDArray[np.uint8],
    rows: Sequence[int] | npt.NDArray[np.int64],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float32]:
    """`Forward(model).compute`, for a network that is used once."""
    return Forward(model).compute(array, rows, progress=progress)


# -- the run's weights -----------------------------------------------------------------
def save(run: Run, model: Any) -> None:
    """Write the weights of `model` into the run, in the order of Keras."""
    arrays = {f"{index:04d}": array for index, array in enumerate(model.get_weights())}
    write_atomic(run.network_file, lambda to: np.savez(to, **arrays))


def load(run: Run) -> Any:
    """The trained tf-keras network of a run.

    EdgegraftError if the run did not finish, or its weights are missing, damaged or
    those of another network.
    """
    if not run.trained:
        raise run.unfinished()
    path = run.network_file
    if not path.is_file():
        path = run.folder / OLD_NETWORK
    if not path.is_file():
        raise EdgegraftError(
            f"expected a run with its network, got {run.folder} without "
            f"{run.network_file.relative_to(run.folder).as_posix()}; train it again "
            f"with: edgegraft finetune PHOTOS --run {run.name} --overwrite"
        )
    origin = run.config.get("weights") or {}
    frozen = isinstance(origin, dict) and origin.get("file") is not None
    model = _assemble(run.settings, len(run.labels), frozen=frozen)
    try:
        if path == run.network_file:
            _read_arrays(path, model)
        else:
            _read_old(path, model)
    except EdgegraftError:
        raise
    except Exception as error:  # numpy, zipfile and h5py raise many kinds
        raise _damaged(path, " ".join(str(error).split())[:120]) from error
    return model


def _damaged(path: Path, reason: str) -> EdgegraftError:
    return EdgegraftError(
        f"expected the weights of the network that run.json describes in {path}, got: "
        f"{reason}; train it again with --overwrite"
    )


def _read_arrays(path: Path, model: Any) -> None:
    variables = model.weights
    names = [f"{index:04d}" for index in range(len(variables))]
    with zipfile.ZipFile(path) as file:
        entries = file.infolist()
    if sorted(entry.filename for entry in entries) != [f"{n}.npy" for n in names]:
        raise _damaged(path, f"{len(entries)} arrays instead of {len(variables)}")
    if sum(entry.file_size for entry in entries) > _max_bytes(variables):
        raise _damaged(path, "larger arrays than the network has")
    with np.load(path, allow_pickle=False) as stored:
        arrays = [stored[name] for name in names]
    for array, variable in zip(arrays, variables, strict=True):
        if array.shape != tuple(variable.shape) or array.dtype.kind not in "fiu":
            raise _damaged(
                path, f"{array.dtype} {list(array.shape)} for {variable.name}"
            )
    model.set_weights(arrays)


def _read_old(path: Path, model: Any) -> None:
    """Fill `model` from a .keras file of the first edition: its weights, no config."""
    if not zipfile.is_zipfile(path):
        raise _damaged(path, "no .keras file that edgegraft wrote (not a ZIP)")
    with zipfile.ZipFile(path) as file:
        sizes = {entry.filename: entry.file_size for entry in file.infolist()}
    if not set(sizes) <= _OLD_PARTS or "model.weights.h5" not in sizes:
        raise _damaged(path, "no .keras file that edgegraft wrote (other parts)")
    if sum(sizes.values()) > 2 * _max_bytes(model.weights) + (64 << 20):
        raise _damaged(path, "larger weights than the network has")
    model.load_weights(str(path))  # of a .keras file: arrays alone, by layer


def _max_bytes(variables: list[Any]) -> int:
    return sum(int(np.prod(v.shape)) * v.dtype.size + _SLACK for v in variables)
