"""What the machine can do."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def default_precision(accelerator: str = "auto") -> str:
    """The fastest safe ``Trainer(precision=...)`` for a kind of device.

    ``"bf16-mixed"`` on GPUs that have bfloat16 and on CPUs with native bfloat16 arithmetic, ``"32-true"`` elsewhere:
    a CPU that has to emulate bfloat16 is slower with it than without.

    Args:
        accelerator: as for the ``Trainer``: ``"auto"``, ``"cpu"``, ``"gpu"``, ``"cuda"``, ``"mps"`` or another.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if accelerator == "auto" and torch.backends.mps.is_available():
        return "32-true"
    if accelerator in ("auto", "cpu") and _cpu_has_bf16():
        return "bf16-mixed"
    return "32-true"


def _cpu_has_bf16() -> bool:
    # torch keeps its own answers private; they are asked all the same, as the kernels go by them.
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        supported = getattr(torch.cpu, name, None)
        if supported is not None and supported():
            return True
    return False


def device_name(device: torch.device) -> str:
    """What the device calls itself, such as ``"NVIDIA H200"``; for a CPU its model and the threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"{cpu_model()}, {threads} thread{'s' if threads > 1 else ''}"
    return str(device)


def cpu_model() -> str:
    """What the processor calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
