"""Running our ONNX files in stock runtimes."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator


def session(model: onnx.ModelProto | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto | Path, raster: np.ndarray, **states: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs of ONNX Runtime by name; ``raster`` in any type."""
    runtime = session(model)
    first = runtime.get_inputs()[0]
    feed = {first.name: raster.astype(np.uint8 if first.type == "tensor(uint8)" else np.float32), **states}
    return dict(zip([output.name for output in runtime.get_outputs()], runtime.run(None, feed), strict=True))


def evaluate(model: onnx.ModelProto, raster: np.ndarray) -> dict[str, np.ndarray]:
    """The same by ONNX's own reference evaluator."""
    first = model.graph.input[0]
    kind = np.uint8 if first.type.tensor_type.elem_type == onnx.TensorProto.UINT8 else np.float32
    outputs = ReferenceEvaluator(model).run(None, {first.name: raster.astype(kind)})
    return dict(zip([output.name for output in model.graph.output], outputs, strict=True))


def with_spikes(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """The model with the spikes ``[T * B, ...]`` of these layers as further outputs."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return model
