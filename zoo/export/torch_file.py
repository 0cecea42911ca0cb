"""Files of ``torch.export``."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from zoo.export.graph import Graph, dynamic_shapes
from zoo.export.parity import Run
from zoo.export.recurrent import ScannedRecurrent, TraceableRecurrent

METADATA = "metadata.json"


class TorchProgram:
    """A model as a program of ``torch.export``, which torch alone loads and runs.

    Args:
        graph: the model.
        inputs: to trace it with; not kept.
        output: not used, as outputs have no names here.
    """

    suffix = ".pt2"
    opset: int | None = None
    recurrent: type[TraceableRecurrent] = ScannedRecurrent

    def __init__(self, graph: Graph, inputs: tuple[Tensor, ...], output: str) -> None:
        self.program = trace(graph, inputs)

    def encode(self, metadata: Mapping[str, Any]) -> bytes:
        """The bytes of the file, with ``metadata`` as JSON beside the model."""
        buffer = io.BytesIO()
        torch.export.save(self.program, buffer, extra_files={METADATA: json.dumps(metadata, indent=2)})
        return buffer.getvalue()

    def output_shape(self) -> list[int | None]:
        """Of the outputs; ``None`` for a size that is free."""
        [node] = self.program.graph.output_node().args[0]
        return [size if isinstance(size, int) else None for size in node.meta["val"].shape]

    @staticmethod
    def load(data: bytes) -> Run:
        """The model in the bytes of a file that was made here."""
        module = torch.export.load(io.BytesIO(data)).module()

        def run(inputs: tuple[Tensor, ...]) -> Tensor:
            with torch.no_grad():
                outputs: Tensor = module(*inputs)
            return outputs

        return run


def trace(graph: Graph, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """The graph as a program without a trace of the machine or the samples that it was made with."""
    shapes = dynamic_shapes(inputs, graph.task.network)
    with torch.no_grad():
        program = torch.export.export(graph, inputs, dynamic_shapes=shapes, strict=False)
    for module in program.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                for name in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn"):
                    node.meta.pop(name, None)
    program.example_inputs = None
    return program
