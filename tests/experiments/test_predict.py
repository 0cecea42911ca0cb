"""The command predict, on real files and models of real runs."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import HAS_MNIST, REPOSITORY, SHORT
from PIL import Image, ImageDraw, ImageFont

from datamodules import MNISTDataModule, TensorDataModule
from experiments import predict as module
from experiments.digit_reader import load_reader
from experiments.predict import predict
from zoo import MLPClassifier
from zoo.checkpointing import CheckpointError, read_checkpoint, write_checkpoint

MODELS = {
    "mnist_cnn": SHORT,
    "mnist_lenet": SHORT,
    "mnist_mlp": SHORT,
    "mnist_softmax": SHORT,
    "mnist_lstm": SHORT,
    "mnist_rnn": [*SHORT, "--data.image_size", "20"],
}


@pytest.fixture
def checkpoint_of(run_once, summary_of):
    return lambda name: summary_of(run_once(name, *MODELS[name]).directory)["checkpoint"]


@pytest.fixture
def checkpoint(checkpoint_of):
    return checkpoint_of("mnist_cnn")


@pytest.fixture
def draw(tmp_path):
    """Writes a picture of a digit, and returns its path."""

    def draw(name, digit="7", size=80, ink=0, paper=255, mode="L"):
        picture = Image.new(mode, (size, size), paper)
        font = ImageFont.load_default(size * 0.6)
        ImageDraw.Draw(picture).text((size / 2, size / 2), digit, fill=ink, font=font, anchor="mm", stroke_width=2)
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        picture.save(path)
        return str(path)

    return draw


def run(*args):
    """The exit code of the command."""
    try:
        predict(list(args))
    except SystemExit as stopped:
        return stopped.code
    return 0


@pytest.mark.parametrize("name", MODELS)
def test_every_classifier_sees_what_it_was_trained_on(name, checkpoint_of, run_once):
    """The probabilities of test images are those of the data module's own batches."""
    arguments = read_checkpoint(checkpoint_of(name))["datamodule_hyper_parameters"]
    data = MNISTDataModule(**{**arguments, "augment": None, "dataset": "digits"})
    data.setup()
    plain = MNISTDataModule(dataset="digits", seed=0)
    plain.setup()
    reader = load_reader(checkpoint_of(name))
    assert (reader.image_size, reader.as_rows) == (arguments["image_size"], arguments["as_rows"])
    with torch.inference_mode():
        expected = reader.task.predict_step(next(iter(data.test_dataloader()))).probabilities
    torch.testing.assert_close(reader.probabilities(plain.splits.test.features[:, 0]), expected)


def test_both_polarities_are_the_same_and_said(checkpoint, draw, capsys):
    files = [
        draw("black.png"),
        draw("white.bmp", ink=255, paper=0),
        draw("red.png", ink=(180, 20, 20), paper=(250, 250, 240), mode="RGB"),
    ]
    assert run("--checkpoint", checkpoint, *files, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["dataset"], told["temperature"]) == ("CNNClassifier", "digits", 1.0)
    assert [image["polarity"] for image in told["images"]] == ["dark on light", "light on dark", "dark on light"]
    assert [image["image"] for image in told["images"]] == files
    black, white, red = told["images"]
    assert white["top"] == black["top"]
    assert len(black["top"]) == 3
    assert black["top"][0] == {"class": black["class"], "probability": black["probability"]}
    shares = [one["probability"] for one in black["top"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 1.0 + 1e-6
    assert red["probability"] == pytest.approx(black["probability"], abs=0.1)
    assert run("--checkpoint", checkpoint, files[0]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split()[0] == str(black["class"])
    assert f"{100 * black['probability']:.2f} %" in line
    assert "dark on light" in line
    assert files[0] in line


def test_damaged_files_are_named_and_the_others_go_on(checkpoint, draw, tmp_path, capsys):
    good, last = draw("good.png"), draw("last.png", "3")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("hello")
    Image.new("L", (9, 9), 255).save(tmp_path / "blank.png")
    bad = [str(tmp_path / name) for name in ("cut.png", "text.png", "blank.png", "none.png")]
    assert run("--checkpoint", checkpoint, good, *bad, last) == 1
    out, err = capsys.readouterr()
    assert [line.rpartition("  ")[2] for line in out.splitlines()[2:]] == [good, last]
    errors = err.splitlines()
    assert len(errors) == 4
    assert all(line.startswith(f"error: {name} ") for line, name in zip(errors, bad, strict=True))
    assert "is blank" in errors[2]
    assert run("--checkpoint", checkpoint, good, bad[0], "--json") == 1
    one, other = json.loads(capsys.readouterr().out)["images"]
    assert one["image"] == good
    assert other.keys() == {"image", "error"}


def test_folders_duplicates_and_several_glyphs(checkpoint, draw, tmp_path, capsys):
    first, second = draw("in/a.PNG", "1"), draw("in/b.jpg", "4 2", 120)
    (tmp_path / "in" / "notes.txt").write_text("x")
    (tmp_path / "in" / "deeper.png").mkdir()
    (tmp_path / "in" / "link.gif").symlink_to(first)
    folder = str(tmp_path / "in")
    assert run("--checkpoint", checkpoint, folder, first, f"{folder}/../in/b.jpg", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [image["image"] for image in told["images"]] == [first, second, str(tmp_path / "in" / "link.gif")]
    assert told["passed_over"] == 2
    assert [image["glyphs"] for image in told["images"]] == [1, 2, 1]
    assert told["images"][0]["top"] == told["images"][2]["top"]
    assert run("--checkpoint", checkpoint, folder) == 0
    out = capsys.readouterr().out
    assert "several glyphs, read as one" in out
    assert "passed over 2 other files" in out
    (tmp_path / "empty").mkdir()
    assert run("--checkpoint", checkpoint, str(tmp_path / "empty")) == 1
    assert capsys.readouterr() == ("", f"error: there is no picture in {tmp_path / 'empty'}\n")


def test_a_name_cannot_move_the_cursor(checkpoint, draw, capsys):
    path = draw("\x1b[31mred\n.png")
    assert run("--checkpoint", checkpoint, path, path + "?") == 1
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert r"\x1b[31mred\n.png" in out
    assert len(err.splitlines()) == 1


def test_batches_keep_the_order(checkpoint, draw, monkeypatch, capsys):
    files = [draw(f"{digit}.png", digit) for digit in "0123456"]
    run("--checkpoint", checkpoint, *files, "--json")
    whole = json.loads(capsys.readouterr().out)["images"]
    monkeypatch.setattr(module, "_BATCH", 3)
    run("--checkpoint", checkpoint, *files, "--json")
    parts = json.loads(capsys.readouterr().out)["images"]
    assert [image["image"] for image in parts] == files
    assert [image["probability"] for image in parts] == pytest.approx([image["probability"] for image in whole])


def test_a_temperature_in_the_checkpoint_counts(checkpoint, draw, tmp_path, capsys):
    write_checkpoint({**read_checkpoint(checkpoint), "temperature": 20.0}, tmp_path / "cool.ckpt")
    path = draw("a.png")
    for file in (checkpoint, str(tmp_path / "cool.ckpt")):
        assert run("--checkpoint", file, path, "--json") == 0
    plain, cool = (json.loads(text) for text in capsys.readouterr().out.replace("}\n{", "}\0{").split("\0"))
    assert cool["temperature"] == 20.0
    assert cool["images"][0]["class"] == plain["images"][0]["class"]
    assert cool["images"][0]["probability"] < plain["images"][0]["probability"]


@pytest.mark.parametrize(
    ("args", "code", "parts"),
    [
        ([], 2, ["--checkpoint", "picture"]),
        (["--checkpoint", "{checkpoint}"], 2, ["picture"]),
        (["--chekpoint", "x", "a.png"], 2, ["--chekpoint", "did you mean --checkpoint"]),
        (["--checkpoint", "x", "--\x1b[2J", "a.png"], 2, ["unknown option --\\x1b[2J"]),
        (["--checkpoint", "{checkpoint}", "--model", "CNN", "a.png"], 2, ["--model", "CNN"]),
    ],
)
def test_a_wrong_command_line_is_one_line(args, code, parts, checkpoint, capsys):
    assert run(*(arg.format(checkpoint=checkpoint) for arg in args)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert all(part in err for part in parts)


def test_what_does_not_say_how_its_pictures_were_standardised_is_refused(checkpoint, run_once, make_unknown, tmp_path):
    contents = read_checkpoint(checkpoint)
    state, arguments = contents["MNISTDataModule"], contents["datamodule_hyper_parameters"]
    cases = {
        "does not say how": {"MNISTDataModule": {**state, "mean": None}},
        "nothing usable": {"MNISTDataModule": {**state, "std": torch.zeros(1, 1, 1)}},
        "says nothing usable": {"datamodule_hyper_parameters": {**arguments, "image_size": 10**9}},
        "takes no pictures of 32x32": {"datamodule_hyper_parameters": {**arguments, "image_size": 32}},
        "takes no pictures of 28x28": {"datamodule_hyper_parameters": {**arguments, "as_rows": True}},
    }
    for words, values in cases.items():
        write_checkpoint({**contents, **values}, tmp_path / "other.ckpt")
        with pytest.raises(CheckpointError, match=words):
            predict(["--checkpoint", str(tmp_path / "other.ckpt"), "a.png"])
    with pytest.raises(CheckpointError, match="not trained on an MNISTDataModule"):
        predict(["--checkpoint", make_unknown(), "a.png"])
    options = ["--trainer.max_epochs", "1", "--data.num_samples", "300", "--data.batch_size", "40"]
    linear = run_once("linear_regression", *options).directory / "checkpoints" / "last.ckpt"
    with pytest.raises(CheckpointError, match="LinearRegressor, which does not tell classes of pictures apart"):
        predict(["--checkpoint", str(linear), "a.png"])
    with pytest.raises(CheckpointError, match=r"no pretrained weights 'no such': there are .*mnist_cnn"):
        predict(["--checkpoint", "no such", "a.png"])
    with pytest.raises(CheckpointError, match="there is no checkpoint file"):
        predict(["--checkpoint", "none.ckpt", "a.png"])


@pytest.fixture
def make_unknown(tmp_path):
    """A checkpoint of a classifier of pictures that were somebody's own tensors."""

    def make():
        from lightning.pytorch import Trainer

        data = TensorDataModule(torch.rand(60, 1, 28, 28), torch.arange(60) % 10, batch_size=16)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
        trainer = Trainer(max_epochs=1, enable_model_summary=False, log_every_n_steps=1, **quiet)
        trainer.fit(MLPClassifier(hidden=(4,)), data)
        trainer.save_checkpoint(tmp_path / "unknown.ckpt")
        return str(tmp_path / "unknown.ckpt")

    return make


# ---------------------------------------------------------------------- MNIST as files


@pytest.mark.skipif(not HAS_MNIST, reason="the MNIST archives are not in data/MNIST/raw")
def test_test_images_as_files_of_any_scale_and_polarity_keep_their_accuracy(run_once, summary_of, tmp_path, capsys):
    options = ["--data.data_dir", str(REPOSITORY / "data"), "--data.source", "local", "--data.val_size", "1000"]
    few = ["--trainer.limit_train_batches", "120", "--trainer.limit_test_batches", "1"]
    trained = run_once("mnist_cnn", *options, *few)
    checkpoint = summary_of(trained.directory)["checkpoint"]
    data = MNISTDataModule(str(REPOSITORY / "data"), source="local")
    data.setup()
    count = 250
    images, labels = data.splits.test.features[:count, 0], data.splits.test.targets[:count]
    with torch.inference_mode():
        reader = load_reader(checkpoint)
        plain = float((reader.probabilities(images).argmax(dim=1) == labels).float().mean())
    assert plain > 0.95
    for scale, inverted, suffix in ((1, False, "png"), (1, True, "bmp"), (2.5, True, "png"), (6, False, "jpg")):
        folder = tmp_path / "files"
        folder.mkdir()
        size = round(28 * scale)
        for index, image in enumerate(images):
            pixels = np.asarray(Image.fromarray(image.numpy()).resize((size, size), Image.Resampling.BICUBIC))
            Image.fromarray(255 - pixels if inverted else pixels).save(folder / f"{index:04}.{suffix}")
        assert run("--checkpoint", checkpoint, str(folder), "--json") == 0
        told = json.loads(capsys.readouterr().out)["images"]
        right = sum(image["class"] == int(label) for image, label in zip(told, labels, strict=True)) / count
        assert right >= plain - 0.02, (scale, inverted, suffix)
        wanted = "dark on light" if inverted else "light on dark"
        assert [image["polarity"] for image in told] == [wanted] * count
        shutil.rmtree(folder)
