import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
PAGES = [
    REPOSITORY / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "SCOREBOARD.md",
        "docs/reliability.md",
        "docs/performance.md",
    )
]


def test_the_two_commands_stand_first_and_ci_runs_the_second():
    commands = re.search(r"```sh\n(.*?)```", README, re.DOTALL)[1].splitlines()
    assert commands == [
        "pip install -e . && python -m experiments.mnist_cnn",
        'pip install -e ".[dev]" && pytest',
    ]
    assert README.index(commands[0]) < 120
    ci = (REPOSITORY / ".ci" / "run").read_text()
    assert 'install --quiet -e ".[dev]"' in ci
    assert "\npytest\n" in ci


def test_the_python_examples_run(tmp_path):
    examples = [code for page in PAGES for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
    assert len(examples) == 4
    # Each by itself, in one process: importing torch takes longer than all of them.
    program = "".join(f"exec({example!r}, {{}})\n" for example in examples)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cnn.ckpt").is_file()


def test_the_readme_names_the_weights_that_are_shipped():
    from zoo import list_pretrained

    told = re.search(r"^Weights of (.*?) come with the package", README, re.DOTALL | re.MULTILINE)[1]
    assert sorted(re.findall(r"`(\w+)`", told)) == list_pretrained()


def test_links_lead_somewhere():
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#]+)\)", page.read_text())]
    assert len(links) >= 4
    assert [(page.name, link) for page, link in links if not (page.parent / link).is_file()] == []


def test_the_names_in_the_readme_exist():
    import datamodules
    import zoo
    from zoo import (
        calibration,
        callbacks,
        checkpointing,
        decoding,
        doctor,
        export,
        leaves,
        networks,
        optim,
        pretrained,
        tasks,
        tracking,
    )

    places = {
        "zoo": zoo, "zoo.networks": networks, "zoo.tasks": tasks, "zoo.optim": optim, "zoo.callbacks": callbacks,
        "zoo.tracking": tracking, "zoo.checkpointing": checkpointing, "zoo.decoding": decoding,
        "zoo.doctor": doctor, "zoo.calibration": calibration, "zoo.leaves": leaves, "zoo.export": export,
        "zoo.pretrained": pretrained,
        "datamodules": datamodules,
    }  # fmt: skip
    for package, contents in re.findall(r"^\| `([a-z.]+)` \| (.*) \|$", README, re.MULTILINE):
        if package in places:
            names = re.findall(r"`([A-Za-z_0-9]+)`", contents)
            assert names
            assert [
                name for name in names if not hasattr(places[package], name) and name not in ("nn", "Trainer")
            ] == []


def test_every_experiment_is_in_the_table():
    from experiments.__main__ import list_experiments

    table = README[README.index("<!-- scoreboard") :].partition("<!-- end")[0]
    rows = re.findall(r"^\| `([a-z_]+)` \| .*\d", table, re.MULTILINE)
    assert set(rows) == set(list_experiments())
