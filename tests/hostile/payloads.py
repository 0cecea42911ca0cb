"""Checkpoints that would run code when they are unpickled."""

import collections
import io
import os
import pickle
import warnings
import zipfile

import torch

PLACES = [
    *("state_dict", "hyper_parameters", "datamodule_hyper_parameters", "callbacks", "loops", "optimizer_states"),
    *(
        "lr_schedulers",
        "datamodule",
        "hparams_name",
        "hparams_type",
        "pytorch-lightning_version",
        "run_record",
        "epoch",
    ),
]


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, directory):
        self.directory = directory

    def __reduce__(self):
        return os.mkdir, (str(self.directory),)


class Script(torch.nn.Module):
    """To be compiled to a TorchScript archive."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def in_place(good, place, payload):
    """The contents of a good checkpoint with a payload somewhere."""
    contents = dict(good)
    there = contents.get(place)
    if isinstance(there, dict):
        contents[place] = type(there)({**there, "evil": payload})
    elif isinstance(there, list):
        contents[place] = [*there, payload]
    else:
        contents[place] = payload
    return contents


def saved(contents, zipped=True):
    buffer = io.BytesIO()
    torch.save(contents, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def scripted():
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Script()), buffer)
    return buffer.getvalue()


def with_pickle(pickled, records=(), compression=zipfile.ZIP_STORED):
    """A torch archive around a pickle of one's own."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in records:
            archive.writestr(f"archive/{name}", content)
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def malicious(good, marker):
    """Malicious files by name; unpickled without care, each but the TorchScript one makes the directory ``marker``."""
    payload = Payload(marker)
    files = {f"zip, {place}": saved(in_place(good, place, payload)) for place in PLACES}
    files |= {f"legacy, {place}": saved(in_place(good, place, payload), zipped=False) for place in PLACES[:4]}
    hparams = {**good["hyper_parameters"], "_instantiator": "os.system", "_class_path": "subprocess.Popen"}
    everything = in_place(good, "hyper_parameters", payload)
    command, code = f"mkdir {marker}".encode(), f"__import__('os').mkdir({str(marker)!r})".encode()
    files |= {
        "zip alone": saved(payload),
        "raw pickle": pickle.dumps(everything),
        "raw pickle, protocol 0": pickle.dumps(everything, protocol=0),
        "raw pickle, protocol 2": pickle.dumps(everything, protocol=2),
        "os.system": with_pickle(
            b"\x80\x02cposix\nsystem\nX" + len(command).to_bytes(4, "little") + command + b"\x85R."
        ),
        "eval": with_pickle(b"\x80\x02c__builtin__\neval\nX" + len(code).to_bytes(4, "little") + code + b"\x85R."),
        "in a set": saved({**good, "run_record": {payload}}),
        "as a key": saved({**good, "run_record": {payload: 1}}),
        "in an OrderedDict": saved({**good, "run_record": collections.OrderedDict(a=payload)}),
        "nested": saved({**good, "run_record": [({"a": [payload]},)]}),
        "instantiator": saved({**good, "hyper_parameters": hparams, "run_record": payload}),
        "TorchScript": scripted(),
    }
    return files
