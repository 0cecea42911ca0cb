"""Trained models as files for other programs: ONNX, and ``torch.export``."""

from zoo.export.errors import ExportError, MissingExtraError
from zoo.export.exporting import Exported, check_target, export_onnx, export_torch
from zoo.export.graph import TensorShape
from zoo.export.metadata import Standardization
from zoo.export.onnx_file import require_onnx
from zoo.export.parity import Parity

__all__ = [
    "ExportError",
    "Exported",
    "MissingExtraError",
    "Parity",
    "Standardization",
    "TensorShape",
    "check_target",
    "export_onnx",
    "export_torch",
    "require_onnx",
]
