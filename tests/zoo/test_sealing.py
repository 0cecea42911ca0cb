import errno
import io
import os
import random
import subprocess
import sys
import zipfile
import zlib

import pytest
import torch
from lightning.pytorch import Trainer

from zoo import CNNClassifier
from zoo.checkpointing import CheckpointError, SealedCheckpointIO, read_checkpoint, write_checkpoint
from zoo.checkpointing.sealing import SealError, is_sealed, seal

CONTENTS = {"state_dict": {"weight": torch.arange(12.0)}, "pytorch-lightning_version": "2.6.6", "epoch": 3}


def archive(contents=None):
    buffer = io.BytesIO()
    torch.save(CONTENTS if contents is None else contents, buffer)
    return buffer.getvalue()


def test_a_sealed_archive_ends_in_the_checksum_of_all_that_is_before_it():
    data = seal(archive())
    assert data[-8:] == b"%08x" % zlib.crc32(data[:-8])
    assert data[-18:-8] == b"zoo-crc32:"
    assert data[: len(archive()) - 2] == archive()[:-2]
    assert is_sealed(data)
    assert not is_sealed(archive())


def test_other_readers_read_a_sealed_archive_like_any_other(tmp_path):
    (tmp_path / "sealed.ckpt").write_bytes(seal(archive()))
    assert torch.equal(torch.load(tmp_path / "sealed.ckpt")["state_dict"]["weight"], torch.arange(12.0))
    with zipfile.ZipFile(tmp_path / "sealed.ckpt") as opened:
        assert opened.testzip() is None
        assert opened.comment.startswith(b"zoo-crc32:")


@pytest.mark.parametrize("data", [b"", b"short", b"x" * 100, seal(archive())])
def test_what_cannot_be_sealed_is_refused(data):
    with pytest.raises(ValueError, match="expected a zip archive without a comment"):
        seal(data)


@pytest.mark.parametrize("bits", [0x01, 0x80, 0xFF])
def test_any_byte_that_is_changed_is_noticed(bits):
    data = seal(archive())
    places = {*random.Random(0).sample(range(len(data)), 300), *range(len(data) - 60, len(data))}
    for place in places:
        changed = bytearray(data)
        changed[place] ^= bits
        with pytest.raises(SealError, match="was changed after it was written"):
            is_sealed(bytes(changed))


@pytest.mark.parametrize("left", [0, 100, 0.5, -1, -5, -12, -30])
def test_a_file_that_is_cut_short_is_refused(tmp_path, left):
    write_checkpoint(CONTENTS, tmp_path / "model.ckpt")
    data = (tmp_path / "model.ckpt").read_bytes()
    (tmp_path / "model.ckpt").write_bytes(data[: int(len(data) * left) if isinstance(left, float) else left])
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(tmp_path / "model.ckpt")


def test_a_damaged_checkpoint_is_named(tmp_path):
    write_checkpoint(CONTENTS, tmp_path / "model.ckpt")
    assert torch.equal(read_checkpoint(tmp_path / "model.ckpt")["state_dict"]["weight"], torch.arange(12.0))
    data = bytearray((tmp_path / "model.ckpt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model.ckpt").write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"model\.ckpt is damaged: its checksum is not that of its bytes"):
        read_checkpoint(tmp_path / "model.ckpt")


def test_a_checkpoint_takes_the_place_of_the_one_before_and_leaves_nothing_beside_it(tmp_path):
    for epoch in (1, 2):
        write_checkpoint(CONTENTS | {"epoch": epoch}, tmp_path / "new" / "last.ckpt")
    assert read_checkpoint(tmp_path / "new" / "last.ckpt")["epoch"] == 2
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["last.ckpt"]


def failing(*words):
    def fail(*args, **kwargs):
        raise OSError(*words)

    return fail


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_file_before_and_says_why(tmp_path, monkeypatch, call):
    target = tmp_path / "last.ckpt"
    write_checkpoint(CONTENTS, target)
    before = target.read_bytes()
    where = os if call == "fsync" else type(target)
    monkeypatch.setattr(where, call, failing(errno.ENOSPC, "No space left on device"))
    with pytest.raises(CheckpointError, match="could not be written: No space left on device; the file that was there"):
        write_checkpoint(CONTENTS | {"epoch": 9}, target)
    monkeypatch.undo()
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_rename_that_may_not_last_is_said_to_be_that(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.checkpointing.files._sync_folder", failing(errno.EIO, "Input/output error"))
    with pytest.raises(CheckpointError, match=r"was written, but its folder not synced: Input/output error"):
        write_checkpoint(CONTENTS | {"epoch": 9}, tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt")["epoch"] == 9


def test_where_no_folder_can_be_opened_a_checkpoint_is_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_DIRECTORY")  # as on Windows
    monkeypatch.setattr(os, "open", failing(errno.EACCES, "Permission denied"))
    write_checkpoint(CONTENTS | {"epoch": 9}, tmp_path / "last.ckpt")
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "last.ckpt")["epoch"] == 9


def test_what_is_read_back_must_be_what_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(type(tmp_path), "read_bytes", lambda path: b"something else")
    with pytest.raises(CheckpointError, match=r"what was read back is not what was written$"):
        write_checkpoint(CONTENTS, tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"could not be written: (Not a directory|File exists)"):
        write_checkpoint(CONTENTS, tmp_path / "file" / "last.ckpt")


LIMITED = """
import resource, signal, sys, torch
from zoo.checkpointing import CheckpointError, write_checkpoint
write_checkpoint({"epoch": 1}, sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_checkpoint({"weight": torch.zeros(100_000)}, sys.argv[1])
except CheckpointError as error:
    print(error)
"""


def test_a_limit_on_the_size_of_files_leaves_the_file_before(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "last.ckpt")], capture_output=True, text=True, check=True
    )
    assert "could not be written: File too large; the file that was there before is untouched" in done.stdout
    assert torch.load(tmp_path / "last.ckpt") == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_any_trainer_writes_and_reads_sealed_checkpoints(make_trainer, make_images, tmp_path):
    def task():
        return CNNClassifier(channels=(4,), hidden=None, image_size=8, padding=None)

    trainer = make_trainer(max_epochs=1, plugins=[SealedCheckpointIO()])
    assert isinstance(trainer, Trainer)
    trainer.fit(task(), make_images(8))
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    assert is_sealed(path.read_bytes())
    again = make_trainer(max_epochs=2, plugins=[SealedCheckpointIO()])
    again.fit(task(), make_images(8), ckpt_path=path, weights_only=True)
    assert again.current_epoch == 2
    assert CNNClassifier.load_from_checkpoint(path).hparams["channels"] == (4,)
    data = bytearray(path.read_bytes())
    data[1000] ^= 4
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="is damaged"):
        make_trainer(max_epochs=2, plugins=[SealedCheckpointIO()]).fit(task(), make_images(8), ckpt_path=path)
    SealedCheckpointIO().remove_checkpoint(path)
    SealedCheckpointIO().remove_checkpoint(path)
    assert not path.exists()
    with pytest.raises(TypeError, match="storage_options"):
        SealedCheckpointIO().save_checkpoint(CONTENTS, path, {"any": 1})
