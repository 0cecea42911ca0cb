"""The sweep beside mnist_cnn: what W&B's own programs make of it, and what the experiment makes of that."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

pytest.importorskip("wandb")

from experiments import mnist_cnn
from experiments.fitting import FitOnlyCLI
from zoo.tracking import end_service

FILE = REPOSITORY / "experiments" / "sweep.yaml"
SWEEP = yaml.safe_load(FILE.read_text())


def agents_command(values):
    """The command with which ``wandb agent`` starts a run of the sweep, made by its own functions."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    macros = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    macros |= {"interpreter": ["python"], "program": [SWEEP["program"]], "env": ["/usr/bin/env"]}
    parts = create_sweep_command(list(SWEEP["command"]))
    return [part for chunk in parts for part in (macros[chunk[2:-1]] if chunk.startswith("${") else [chunk])]


def draws():
    """Both ends of every range, and every choice."""
    parameters = SWEEP["parameters"]
    for number in range(3):
        yield {
            name: entry["values"][number] if "values" in entry else entry["min" if number == 0 else "max"]
            for name, entry in parameters.items()
        }


@pytest.mark.parametrize("values", list(draws()), ids=["low", "middle", "high"])
def test_the_agents_command_is_one_that_the_parser_takes(values, tmp_path):
    python = ["/usr/bin/env", "python", "-m", "experiments.mnist_cnn"]
    command = agents_command(values)
    assert command[:4] == python
    assert len(command) == len(python) + 1 + len(SWEEP["parameters"])
    config = FitOnlyCLI(mnist_cnn.EXPERIMENT, command[4:], tmp_path).config
    for name, value in values.items():
        section, option, *argument = name.split(".")
        found = config[section][option]
        if argument:
            found = found.init_args[argument[0]]
        assert (found, type(found)) == (value, type(value)), name


def forget_wandb():
    """As if W&B had never been started in this process: it would look for the process of its first run."""
    end_service()
    os.environ.pop("WANDB_SERVICE", None)


@pytest.fixture
def agents_environment(tmp_path, monkeypatch):
    """What ``wandb agent`` tells the runs that it starts, in a process that W&B is new to."""
    forget_wandb()
    parameters = tmp_path / "parameters.yaml"
    values = {"model.optimizer.lr": 0.00123, "data.batch_size": 64}
    parameters.write_text(
        "wandb_version: 1\n" + "".join(f"{key}:\n  value: {value}\n" for key, value in values.items())
    )
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    monkeypatch.setenv("WANDB_RUN_ID", "run12345")
    monkeypatch.setenv("WANDB_PROJECT", "of-the-sweep")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(parameters))
    yield values
    forget_wandb()


# W&B leaves the file of parameters open.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning")
def test_a_run_of_the_agents_is_the_agents_run_and_logs_what_the_sweep_looks_at(agents_environment, read_wandb, capfd):
    command = agents_command(agents_environment)[4:]
    mnist_cnn.main([*command, "--data.dataset", "digits", "--trainer.limit_train_batches", "8", "--run_dir", "run"])
    [run] = read_wandb("run")
    assert (run["run_id"], run["project"], run["state"]) == ("run12345", "of-the-sweep", "finished")
    assert run["config"]["model.optimizer.lr"] == 0.00123  # as the sweep's own page names it
    assert run["config"]["optimizer"]["lr"] == pytest.approx(0.00123)
    assert SWEEP["metric"]["name"].startswith("val/")
    assert run["summary"][SWEEP["metric"]["name"]] > 0
    assert capfd.readouterr().err == ""


def test_wandb_sweep_takes_the_file_as_it_is(tmp_path):
    """``wandb sweep`` itself, against a server of this test's that keeps what it is sent."""
    sent = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self._answer({})

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = json.loads(body) if self.path == "/graphql" else {"query": ""}
            if "upsertSweep" in request["query"]:
                sent.append(yaml.safe_load(request["variables"]["config"]))
                project = {"id": "1", "name": "zoo", "entity": {"id": "1", "name": "me"}}
                sweep = {"sweep": {"name": "abcd1234", "project": project}, "configValidationWarnings": []}
                self._answer({"upsertSweep": sweep})
            else:
                self._answer({"viewer": {"id": "1", "entity": "me", "flags": "{}", "teams": {"edges": []}}})

        def _answer(self, data):
            body = json.dumps({"data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        account = {
            "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
            "WANDB_API_KEY": "0" * 40,
            "WANDB_ERROR_REPORTING": "false",
        }
        command = [sys.executable, "-m", "wandb", "sweep", "--project", "zoo", "--entity", "me", str(FILE)]
        others = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
        environment = {**others, **account, "HOME": str(tmp_path)}
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        server.shutdown()
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert "wandb agent me/zoo/abcd1234" in printed
    assert "WARNING" not in printed
    assert sent == [SWEEP]


def test_the_sweep_is_chosen_by_validation_and_keeps_to_what_the_schema_names():
    assert set(SWEEP) <= {
        *("name", "description", "program", "command", "method", "metric", "run_cap", "early_terminate", "parameters"),
    }
    assert (SWEEP["method"], SWEEP["metric"]["goal"]) == ("bayes", "minimize")
    for name, entry in SWEEP["parameters"].items():
        if "values" in entry:
            assert set(entry) == {"values"}
        else:
            assert set(entry) == {"distribution", "min", "max"}
            assert entry["distribution"] in ("uniform", "log_uniform_values")
            assert 0 < float(entry["min"]) < float(entry["max"])
            # PyYAML takes 1e-6 for a text, and the server a text for a choice.
            assert isinstance(entry["min"], float), name
    # Validations come one each quarter of the one epoch, and runs are compared from the second on.
    assert "--trainer.val_check_interval=0.25" in SWEEP["command"]
    assert SWEEP["early_terminate"]["min_iter"] == 2


def test_the_file_is_where_the_wheel_takes_it_from():
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert 'experiments = ["sweep.yaml"]' in project
    assert Path(mnist_cnn.__file__).with_name("sweep.yaml").is_file()
