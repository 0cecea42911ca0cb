import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from zoo import list_pretrained

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = ["pyproject.toml", "README.md", "zoo", "datamodules", "experiments"]
    source.mkdir()
    for name in names:  # a copy, because building leaves its traces beside the sources
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    return path


def test_the_wheel_holds_every_module_and_what_lies_beside_them(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    files = {
        str(path.relative_to(REPOSITORY))
        for package in ("zoo", "datamodules", "experiments")
        for path in (REPOSITORY / package).rglob("*")
        if path.suffix in (".py", ".css", ".safetensors")
    }
    assert "experiments/report/page.css" in files
    assert files <= held
    assert {f"{package}/py.typed" for package in ("zoo", "datamodules", "experiments")} <= held
    assert "experiments/sweep.yaml" in held
    assert {"zoo/pretrained/manifest.json", "zoo/pretrained/mnist_cnn.safetensors"} <= held
    assert not any(name.startswith("tests/") for name in held)


def test_the_wheel_stays_small_with_all_its_weights(wheel):
    assert wheel.stat().st_size < 10_000_000


def test_the_wheel_works_elsewhere(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path / 'site')!r}]\n"
        "import datamodules, experiments, zoo\n"
        "assert all('site' in module.__file__ for module in (datamodules, experiments, zoo))\n"
        "from zoo import CNNClassifier, LeNet5Classifier, MulticlassClassification\n"
        "from zoo.networks import ConvBlock, ConvNet, LeNet5\n"
        "from datamodules import MNISTDataModule, TensorDataModule\n"
        "import torch\n"
        "for name in zoo.list_pretrained():\n"
        "    assert not zoo.load_pretrained(name).training\n"
        "digit = zoo.load_pretrained('mnist_cnn').predict_step(torch.zeros(1, 1, 28, 28))\n"
        "print('pretrained', len(zoo.list_pretrained()), digit.probabilities.shape)\n"
        "from experiments.mnist_cnn import main\n"
        "print(main(['--data.dataset', 'digits', '--tracking', 'csv', '--trainer.max_epochs', '1']))"
    )
    # -I: neither the current folder nor the environment; -S would also hide the dependencies.
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "test/accuracy" in done.stdout
    assert f"pretrained {len(list_pretrained())} torch.Size([1, 10])" in done.stdout
    assert (tmp_path / "runs" / "mnist_cnn").is_dir()


def pad(version):
    return tuple(int(part) for part in [*version.split("."), "0", "0"][:3])


def test_the_lower_bounds_that_are_tested_are_those_that_are_promised():
    """.ci/lowest.txt pins each bound of pyproject.toml that it names, and names every dependency that users get."""
    project = (REPOSITORY / "pyproject.toml").read_text()
    promised = dict(re.findall(r'"([\w-]+)(?:\[\w+\])?>=([\d.]+)"', project))
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (REPOSITORY / ".ci" / "lowest.txt").read_text(), re.MULTILINE))
    users = re.search(r"\ndependencies = \[\n(.*?)\n\]", project, re.DOTALL)[1]
    for name in re.findall(r'"([\w-]+)', users):
        assert name in pinned
    assert {name: pad(version) for name, version in pinned.items()} == {name: pad(promised[name]) for name in pinned}
