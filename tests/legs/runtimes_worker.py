"""What the benchmark of the runtimes does in their environments: one job a process.

`prepare` and `lower` (ExecuTorch) quantize the network with each camp's tool, `answer`
gives the best label of each test photo, `time` times one runtime. Prints a line of
JSON. Called by tests/benchmarks/runtimes.py, which says how each is quantized.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

WARM_SECONDS = 0.3


def prepare(work: str, exports: str) -> dict[str, Any]:
    """int8.onnx and int8.xml of float32.tflite, calibrated on calibration.npy."""
    import nncf
    import openvino
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quant_pre_process,
        quantize_static,
    )

    folder, model = Path(work), Path(exports) / "float32.tflite"
    pixels = np.load(folder / "calibration.npy")
    plain, shaped = folder / "float32.onnx", folder / "shaped.onnx"
    # onnx2torch takes the axes of a squeeze as an attribute only: opset 12
    for path, opset in ((plain, "17"), (folder / "opset12.onnx", "12")):
        convert = [sys.executable, "-m", "tf2onnx.convert", "--opset", opset]
        subprocess.run(
            [*convert, "--tflite", str(model), "--output", str(path)],
            check=True,
            capture_output=True,
        )
    quant_pre_process(str(plain), str(shaped), skip_symbolic_shape=True)  # all fixed

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._photos = iter(pixels)

        def get_next(self) -> dict[str, Any] | None:
            photo = next(self._photos, None)
            return None if photo is None else {"image": photo[None]}

    quantize_static(
        str(shaped),
        str(folder / "int8.onnx"),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    read = openvino.convert_model(str(model))
    data = nncf.Dataset(list(pixels), lambda photo: photo[None])
    quantized = nncf.quantize(read, data, subset_size=len(pixels))
    openvino.save_model(quantized, str(folder / "int8.xml"), compress_to_fp16=False)
    return {"network": f"{model.parent.parent.name}, input {list(pixels.shape[1:])}"}


def lower(work: str) -> dict[str, Any]:
    """int8.pte of opset12.onnx, calibrated on calibration.npy."""
    import onnx
    import onnx2torch
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
        XnnpackPartitioner,
    )
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    folder = Path(work)
    photos = torch.from_numpy(np.load(folder / "calibration.npy"))
    part = folder / "probabilities.onnx"
    onnx.utils.extract_model(
        str(folder / "opset12.onnx"), str(part), ["image"], ["probabilities"]
    )
    network = onnx2torch.convert(onnx.load(str(part))).eval()
    example = (photos[:1],)
    symmetric = get_symmetric_quantization_config(is_per_channel=True)
    observed = prepare_pt2e(
        torch.export.export(network, example, strict=False).module(),
        XNNPACKQuantizer().set_global(symmetric),
    )
    for number in range(len(photos)):
        observed(photos[number : number + 1])
    program = to_edge_transform_and_lower(
        torch.export.export(convert_pt2e(observed), example, strict=False),
        partitioner=[XnnpackPartitioner()],
    )
    (folder / "int8.pte").write_bytes(program.to_executorch().buffer)
    return {}


def load(name: str, path: str, threads: int) -> tuple[Any, str]:
    """(function of uint8 [1, H, W, 3] that gives probabilities [1, L], version)."""
    if name == "litert":
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(path, num_threads=threads)
        interpreter.allocate_tensors()
        into = interpreter.get_input_details()[0]["index"]
        names = interpreter.get_signature_list()
        runner = interpreter.get_signature_runner(next(iter(names)))
        out = runner.get_output_details()["probabilities"]["index"]

        def litert(photo: Any) -> Any:
            interpreter.set_tensor(into, photo)
            interpreter.invoke()
            return interpreter.get_tensor(out)

        return litert, ai_edge_litert.__version__
    if name == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        return (
            lambda photo: session.run(["probabilities"], {"image": photo})[0],
            onnxruntime.__version__,
        )
    if name == "executorch":
        from importlib.metadata import version

        import torch
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        portable_lib._unsafe_reset_threadpool(threads)
        method = Runtime.get().load_program(path).load_method("forward")
        return (
            lambda photo: method.execute([torch.from_numpy(photo)])[0].numpy(),
            version("executorch"),
        )
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    request = compiled.create_infer_request()
    return (
        lambda photo: request.infer([photo], share_inputs=True, share_outputs=True)[0],
        openvino.__version__.split("-")[0],
    )


def answer(name: str, path: str, work: str) -> dict[str, Any]:
    """The number of the best label of each test photo."""
    run, _ = load(name, path, 2)
    photos = np.load(Path(work) / "test.npy")
    return {"labels": [int(run(photo[None])[0].argmax()) for photo in photos]}


def take_time(name: str, path: str, work: str, threads: str, runs: str) -> Any:
    """Load time, then percentiles of `runs` inferences of one photo, warmed up."""
    photo = np.load(Path(work) / "test.npy", mmap_mode="r")[:1].copy()
    start = time.perf_counter()
    run, version = load(name, path, int(threads))
    loaded = time.perf_counter()
    while time.perf_counter() < loaded + WARM_SECONDS:
        run(photo)
    times = []
    for _ in range(int(runs)):
        begin = time.perf_counter()
        run(photo)
        times.append((time.perf_counter() - begin) * 1e3)
    p50, p95, p99 = (float(value) for value in np.percentile(times, (50, 95, 99)))
    status = Path("/proc/self/status").read_text()  # Linux: the process's own peak
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return {
        "version": version,
        "load_ms": (loaded - start) * 1e3,
        "min_ms": min(times),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "peak_mib": int(peak.split()[1]) / 1024,
    }


if __name__ == "__main__":
    JOBS = {"prepare": prepare, "lower": lower, "answer": answer, "time": take_time}
    print("\n" + json.dumps(JOBS[sys.argv[1]](*sys.argv[2:])))
