"""ONNX files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.export.errors import ExportError, MissingExtraError
from zoo.export.graph import INPUTS, LENGTHS, Graph, free_dimension
from zoo.export.parity import Run
from zoo.export.recurrent import OnnxRecurrent, TraceableRecurrent
from zoo.export.torch_file import trace

OPSET = 18
"""The version of the operators: that in which torch writes them; onnxruntime 1.14 and later run it."""

_MOST_BYTES = 2**31 - 1  # of a message of protocol buffers
_OF_THE_MACHINE = ("metadata_props", "doc_string")  # where the exporter keeps traces of the source


class OnnxProgram:
    """A model as ONNX.

    Args:
        graph: the model.
        inputs: to trace it with; not kept.
        output: what its outputs are called.

    Raises:
        MissingExtraError: the packages for ONNX are not installed.
    """

    suffix = ".onnx"
    opset: int | None = OPSET
    recurrent: type[TraceableRecurrent] = OnnxRecurrent

    def __init__(self, graph: Graph, inputs: tuple[Tensor, ...], output: str) -> None:
        require_onnx()
        program = torch.onnx.export(
            trace(graph, inputs),
            inputs,
            input_names=[INPUTS, LENGTHS][: len(inputs)],
            output_names=[output],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        assert program is not None
        self.model: Any = program.model_proto
        _strip(self.model)
        free = free_dimension(graph.task.network)
        for dim, name in [(0, "batch"), *([] if free is None else [free[:2]])]:
            _rename(self.model.graph, self.model.graph.input[0].type.tensor_type.shape.dim[dim].dim_param, name)

    def encode(self, metadata: Mapping[str, Any]) -> bytes:
        """The bytes of the file, with ``metadata`` among its properties: text as it is, else JSON."""
        del self.model.metadata_props[:]
        for name, value in metadata.items():
            text = value if isinstance(value, str) else json.dumps(value)
            self.model.metadata_props.add(key=name, value=text)
        if self.model.ByteSize() > _MOST_BYTES:
            raise ExportError("the model is larger than the 2 GiB that an ONNX file can hold: use the format torch")
        data: bytes = self.model.SerializeToString()
        return data

    def output_shape(self) -> list[int | None]:
        """Of the outputs; ``None`` for a size that is free."""
        dims = self.model.graph.output[0].type.tensor_type.shape.dim
        return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]

    @staticmethod
    def load(data: bytes) -> Run:
        """The model in the bytes of a file, in onnxruntime."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

        def run(inputs: tuple[Tensor, ...]) -> Tensor:
            feed = {name: part.numpy() for name, part in zip((INPUTS, LENGTHS), inputs, strict=False)}
            return torch.from_numpy(session.run(None, feed)[0])

        return run


def require_onnx() -> None:
    """Raise :class:`MissingExtraError` unless everything is installed that an ONNX file takes."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f'the format onnx needs packages that are not installed ({error.name}): pip install -e ".[export]"'
        ) from error


def _strip(message: Any) -> None:
    """Remove what a model says of the source that it was made from."""
    for name in _OF_THE_MACHINE:
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                _strip(part)


def _rename(graph: Any, size: str, name: str) -> None:
    """Call a free size by another name, also where others are computed from it."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                dim.dim_param = re.sub(rf"\b{re.escape(size)}\b", name, dim.dim_param)
