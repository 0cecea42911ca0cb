import pytest
import torch

from zoo.hardware import default_precision, device_name


@pytest.fixture
def machine(monkeypatch):
    """A machine with the devices that it is given."""

    def have(*, cuda=False, cuda_bf16=False, mps=False, cpu_bf16=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: cuda_bf16)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr("zoo.hardware._cpu_has_bf16", lambda: cpu_bf16)

    return have


@pytest.mark.parametrize(
    ("devices", "accelerator", "precision"),
    [
        ({}, "auto", "32-true"),
        ({"cpu_bf16": True}, "auto", "bf16-mixed"),
        ({"cpu_bf16": True}, "cpu", "bf16-mixed"),
        ({"cuda": True, "cuda_bf16": True}, "auto", "bf16-mixed"),
        ({"cuda": True, "cuda_bf16": True}, "gpu", "bf16-mixed"),
        ({"cuda": True, "cuda_bf16": True}, "cuda", "bf16-mixed"),
        ({"cuda": True, "cuda_bf16": True}, "cpu", "32-true"),
        ({"cuda": True, "cpu_bf16": True}, "auto", "32-true"),
        ({"mps": True, "cpu_bf16": True}, "auto", "32-true"),
        ({"mps": True, "cpu_bf16": True}, "mps", "32-true"),
        ({"mps": True, "cpu_bf16": True}, "cpu", "bf16-mixed"),
    ],
)
def test_the_precision_is_the_fastest_safe_one_of_the_device(machine, devices, accelerator, precision):
    machine(**devices)
    assert default_precision(accelerator) == precision


@pytest.mark.parametrize("supported", [True, False])
def test_the_processor_is_asked_for_native_bfloat16(monkeypatch, supported):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert default_precision("cpu") == ("bf16-mixed" if supported else "32-true")


@pytest.mark.parametrize(("number", "text"), [(1, "1 thread"), (3, "3 threads")])
def test_a_processor_is_named_with_its_threads(monkeypatch, number, text):
    monkeypatch.setattr(torch, "get_num_threads", lambda: number)
    name, threads = device_name(torch.device("cpu")).rsplit(", ", 1)
    assert name
    assert threads == text
    assert device_name(torch.device("meta")) == "meta"
