import contextlib
import shutil
import sys
from pathlib import Path

import pytest
import torch
from payloads import Payload, malicious, saved
from torch import nn

from experiments import linear_regression, mnist_mlp
from zoo import MLPClassifier, MulticlassClassification
from zoo.checkpointing import CheckpointError, load_weights, read_checkpoint


def network():
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))


def task():
    return MLPClassifier(in_features=4, num_classes=3, hidden=(4,))


def run(main, *args):
    """An experiment's command line; its exit code and error."""
    try:
        main([*args, "--tracking", "none", "--trainer.accelerator", "cpu"])
    except SystemExit as error:
        raise CheckpointError(f"exit code {error.code}") from error


def entries(make_trainer, make_data):
    """All ways in which a file, or an address, gets into the zoo."""

    def by_trainer(stage, **settings):
        return lambda path: getattr(make_trainer(), stage)(task(), datamodule=make_data(), ckpt_path=path, **settings)

    return {
        "read_checkpoint": read_checkpoint,
        "load_weights": lambda path: load_weights(network(), path),
        "leaf": MLPClassifier.load_from_checkpoint,
        "task": lambda path: MulticlassClassification.load_from_checkpoint(path, network=network()),
        "weights": lambda path: MLPClassifier(in_features=4, num_classes=3, hidden=(4,), weights=str(path)),
        "fit": by_trainer("fit"),
        "fit, weights_only=False": by_trainer("fit", weights_only=False),
        "validate": by_trainer("validate"),
        "test": by_trainer("test", weights_only=False),
        "predict": by_trainer("predict", weights_only=False),
    }


def test_no_malicious_file_runs_code_through_any_entry(good, make_trainer, make_data, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker, path = tmp_path / "executed", tmp_path / "evil.ckpt"
    tried = 0
    for name, data in malicious(good, marker).items():
        path.write_bytes(data)
        for entry, open_file in entries(make_trainer, make_data).items():
            with pytest.raises(CheckpointError):
                open_file(path)
            assert not marker.exists(), f"{name} by {entry}"
            tried += 1
    assert tried == 29 * 10


def test_the_malicious_files_would_run_code(good, tmp_path):
    marker, path = tmp_path / "executed", tmp_path / "evil.ckpt"
    harmless = []
    for name, data in malicious(good, marker).items():
        path.write_bytes(data)
        with contextlib.suppress(Exception):
            torch.load(path, weights_only=False)
        if marker.exists():
            marker.rmdir()
        else:
            harmless.append(name)
    assert harmless == ["TorchScript"]


@pytest.mark.parametrize(
    ("main", "option"),
    [
        (linear_regression.main, "--resume"),
        (mnist_mlp.main, "--model.weights"),
    ],
)
def test_no_malicious_file_runs_code_on_the_command_line(good, tmp_path, monkeypatch, capsys, main, option):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker, path = tmp_path / "executed", tmp_path / "evil.ckpt"
    files = malicious(good, marker)
    for name in ("zip, state_dict", "zip, callbacks", "legacy, hyper_parameters", "raw pickle", "os.system"):
        path.write_bytes(files[name])
        with pytest.raises(CheckpointError, match="exit code 2"):
            run(main, option, str(path))
        assert not marker.exists(), name
        assert "error: " in capsys.readouterr().err


ADDRESSES = [
    "http://127.0.0.1:{port}/evil.ckpt",
    "HTTP://127.0.0.1:{port}/evil.ckpt",
    "simplecache::http://127.0.0.1:{port}/evil.ckpt",
    "filecache::http://127.0.0.1:{port}/evil.ckpt",
    "https://127.0.0.1:{port}/evil.ckpt",
    "s3://bucket/evil.ckpt",
    "gs://bucket/evil.ckpt",
    "ftp://127.0.0.1:{port}/evil.ckpt",
    "memory://evil.ckpt",
    "file:///etc/hostname",
    "file:/etc/hostname",
    "data:,x",
]


@pytest.mark.parametrize("kind", [str, Path])
def test_nothing_is_fetched(good, server, make_trainer, make_data, tmp_path, kind):
    marker = tmp_path / "executed"
    (tmp_path / "evil.ckpt").write_bytes(saved(Payload(marker)))
    for address in ADDRESSES:
        for entry in entries(make_trainer, make_data).values():
            with pytest.raises(CheckpointError, match=r"is a URL|there is no checkpoint file"):
                entry(kind(address.format(port=server.server_port)))
    assert server.requests == []
    assert not marker.exists()


@pytest.mark.parametrize("option", ["--resume", "--model.weights", "--config", "--trainer.callbacks", "--model"])
def test_nothing_is_fetched_by_the_command_line(server, tmp_path, monkeypatch, capsys, option):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.ckpt").write_text("trainer:\n  max_epochs: 1\n")
    for address in ADDRESSES[:4]:
        with pytest.raises(CheckpointError, match="exit code 2"):
            run(mnist_mlp.main, option, address.format(port=server.server_port))
    assert server.requests == []


def test_no_code_is_run_whatever_the_environment_says(good, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")  # torch refuses to load anything then
    marker, path = tmp_path / "executed", tmp_path / "evil.ckpt"
    for data in malicious(good, marker).values():
        path.write_bytes(data)
        for entry in (read_checkpoint, MLPClassifier.load_from_checkpoint):
            with pytest.raises(CheckpointError):
                entry(path)
    assert not marker.exists()


# ---------------------------------------------------------------------- configurations


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "theirs"
    short = ("--trainer.max_epochs", "1", "--data.num_samples", "100", "--data.batch_size", "50", "--tracking", "none")
    linear_regression.main([*short, "--trainer.accelerator", "cpu", "--run_dir", str(directory)])
    return directory


@pytest.fixture
def run_directory(a_run, tmp_path, monkeypatch):
    """A short run, in a directory from which Python imports, with a module that says when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil_module.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'executed')!r}).mkdir()\n"
        "from lightning.pytorch import Callback\nclass Evil(Callback):\n    pass\ndef evil(*args):\n    pass\n"
    )
    shutil.copytree(a_run, tmp_path / "theirs")
    yield tmp_path / "theirs"
    sys.modules.pop("evil_module", None)


DATA = "data:\n  num_samples: 100\n  batch_size: 50\n"
EVIL = {
    "callback": "trainer:\n  callbacks:\n  - class_path: evil_module.Evil\n",
    "callback under a dotted name": "trainer.callbacks:\n- class_path: evil_module.Evil\n",
    "callback in a text": "trainer:\n  callbacks: '{class_path: evil_module.Evil}'\n",
    "callback in a text that begins well": "trainer:\n  callbacks: 'zoo.x: {class_path: evil_module.Evil}'\n",
    "process": "trainer:\n  callbacks:\n  - class_path: subprocess.Popen\n    init_args: {args: [mkdir, executed]}\n",
    "logger": "trainer:\n  logger:\n    class_path: evil_module.Evil\n",
    "plugin by name": "trainer:\n  plugins: evil_module.Evil\n",
    "function of a callback": (
        "trainer:\n  callbacks:\n  - class_path: lightning.pytorch.callbacks.LambdaCallback\n"
        "    init_args: {on_fit_start: evil_module.evil}\n"
    ),
    "function by way of our module": (
        "trainer:\n  callbacks:\n  - class_path: lightning.pytorch.callbacks.LambdaCallback\n"
        "    init_args: {on_fit_start: lightning.pytorch.trainer.trainer.os.system}\n"
    ),
    "optimizer by way of its module": "model:\n  optimizer: torch.optim.optimizer.functools.partial\n",
    "optimizer": "model:\n  optimizer: evil_module.evil\n",
    "optimizer class": (
        "model:\n  optimizer:\n    class_path: subprocess.Popen\n    init_args: {args: [mkdir, executed]}\n"
    ),
    "scheduler": "model:\n  scheduler: {class_path: evil_module.Evil}\n",
    "file": "trainer: other.yaml\n",
    "file of callbacks": "trainer:\n  callbacks: other.yaml\n",
    "tag": "trainer: !!python/object/apply:os.mkdir [executed]\n",
    "new tag": "trainer: !!python/object/new:os.mkdir [executed]\n",
    "module tag": "trainer: !!python/module:evil_module\n",
    "name tag": "trainer: !!python/name:evil_module.evil\n",
}


@pytest.mark.parametrize("config", EVIL.values(), ids=EVIL)
def test_a_run_directory_of_somebody_else_runs_no_code(run_directory, capsys, config):
    (run_directory / "config.yaml").write_text(config)
    Path("other.yaml").write_text("callbacks:\n- class_path: evil_module.Evil\n")
    with pytest.raises(CheckpointError, match="exit code 2"):
        run(linear_regression.main, "--resume", str(run_directory))
    assert not list(Path().rglob("executed"))  # the parser changes to the directory of a file that it reads
    assert "error: --resume: " in capsys.readouterr().err


def test_a_directory_whose_name_is_that_of_code_runs_none(run_directory, capsys):
    directory = run_directory.rename("evil_module.Evil")
    (directory / "config.yaml").write_text(EVIL["callback"])
    for args in (["--resume", str(directory)], [f"--resume={directory}"]):
        with pytest.raises(CheckpointError, match="exit code 2"):
            run(linear_regression.main, *args)
        assert not list(Path().rglob("executed"))


def test_code_that_the_command_line_names_is_run(run_directory, capsys):
    (run_directory / "config.yaml").write_text(EVIL["callback"] + "  max_epochs: 2\n" + DATA)
    config = str(run_directory / "config.yaml")
    linear_regression.main(["--resume", str(run_directory), "--config", config, "--tracking", "none"])
    assert Path("executed").exists()


@pytest.mark.parametrize("name", ["tag", "new tag", "module tag", "name tag"])
def test_a_configuration_runs_no_code_by_a_tag(run_directory, capsys, name):
    Path("evil.yaml").write_text(EVIL[name])
    with pytest.raises(CheckpointError, match="exit code 2"):
        run(linear_regression.main, "--config", "evil.yaml")
    assert not list(Path().rglob("executed"))  # the parser changes to the directory of a file that it reads


def test_a_checkpoint_makes_a_run_remove_no_file_but_its_own(run_directory, capsys):
    precious = Path("precious.ckpt").absolute()
    precious.write_text("precious")
    last = run_directory / "checkpoints" / "last.ckpt"
    contents = read_checkpoint(last)
    outside = f"{run_directory}/checkpoints/../../precious.ckpt"
    for state in contents["callbacks"].values():
        if isinstance(state, dict) and "dirpath" in state:
            del state["dirpath"]
            state.update(
                best_model_path=outside, kth_best_model_path=outside, best_k_models={outside: torch.tensor(9e9)}
            )
    torch.save(contents, last)
    linear_regression.main(["--resume", str(run_directory), "--trainer.max_epochs", "2", "--tracking", "none"])
    assert precious.read_text() == "precious"


BOMBS = {
    "aliases": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "merges": "a0: &a0 {x: 1, y: 2}\n"
    + "".join(f"a{step + 1}: &a{step + 1} {{<<: [*a{step}, *a{step}, *a{step}, *a{step}]}}\n" for step in range(12)),
    "holding itself": "trainer: &a\n  callbacks: [*a]\n",
    "nested lists": "trainer: " + "[" * 1000,
    "nested mappings": "".join("  " * depth + "a:\n" for depth in range(200)),
    "long": "trainer: " + "x" * 10**6,
    "long number": "seed_everything: " + "9" * 50_000,
    "no date": "trainer: {max_epochs: 2001-99-99}",
    "no key": "? [a]\n: b",
    "not text": "\x00\x01",
    "a list": "[1, 2]",
    "nothing": "",
}


@pytest.mark.parametrize("entry", ["--config", "--resume"])
@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_configuration_that_would_never_end_is_refused(run_directory, capsys, text, entry):
    config = run_directory / "config.yaml"
    config.write_text(text)
    with pytest.raises(CheckpointError, match="exit code 2"):
        run(linear_regression.main, entry, str(config if entry == "--config" else run_directory))
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert str(config) in error
    assert len(error) < 1000
