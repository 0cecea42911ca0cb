"""Gradients through shared memory: gloo's means to the bit, and nobody is left waiting or lying about."""

import gc
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import warnings
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from zoo import shared_memory
from zoo.callbacks import LeanLoop
from zoo.shared_memory import PeerError, SharedMemoryMean, share_gradients

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses posix_fallocate and Unix sockets")
SECONDS = 60.0


def in_two(function, tmp_path, *arguments):
    """What a function of this module returns in each of two ranks, or the words of its error."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    ranks = [
        context.Process(target=_rank, args=(function, rank, str(tmp_path / "store"), results, arguments))
        for rank in (0, 1)
    ]
    with warnings.catch_warnings():  # Python 3.12 warns of forks beside threads, and torch has some
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        for rank in ranks:
            rank.start()
    found = dict(results.get(timeout=SECONDS) for _ in ranks)
    for rank in ranks:
        rank.join(SECONDS)
    return found[0], found[1]


def _rank(function, rank, store, results, arguments):
    torch.set_num_threads(1)  # the threads of the process that this is a fork of are not here
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        results.put((rank, function(rank, *arguments)))
    except (AssertionError, RuntimeError, OSError) as error:
        results.put((rank, f"{type(error).__name__}: {error}"))
    finally:
        results.close()
        results.join_thread()
        os._exit(0)  # no destructors: a group is not left by one rank alone


def values_of(rank, dtype, size=1000):
    return torch.randn(size, generator=torch.Generator().manual_seed(rank)).to(dtype)


def _means(rank):
    means = SharedMemoryMean.connect(4000, SECONDS)
    equal = []
    for turn in range(50):
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            ours = values_of(rank + 2 * turn, dtype, 500)
            gloos = ours.clone()
            assert means.mean_(ours) is ours
            distributed.all_reduce(gloos.div_(2))
            equal.append(torch.equal(ours, gloos))
    by_hand = means.mean_(torch.tensor([[1.0 + 2 * rank, 5.0]])).tolist()
    return all(equal), len(equal), by_hand


def test_a_mean_is_gloos_to_the_bit(tmp_path):
    assert in_two(_means, tmp_path) == ((True, 150, [[2.0, 5.0]]),) * 2


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3))


def _trained(rank, module=network, bucket_mib=25.0):
    weights = []
    for shares in (False, True):
        model = DistributedDataParallel(module(), bucket_cap_mb=bucket_mib)
        means = share_gradients(model, SECONDS) if shares else None
        assert (means is not None) == shares
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        generator = torch.Generator().manual_seed(rank)
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.randn(8, 20, generator=generator)).square().mean().backward()
            optimizer.step()
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
    return all(map(torch.equal, *weights)), weights[0][0].sum().item()


@pytest.mark.parametrize("bucket_mib", [25.0, 0.0005])
def test_a_training_ends_with_the_weights_of_torchs_own_exchange(tmp_path, bucket_mib):
    first, second = in_two(_trained, tmp_path, network, bucket_mib)
    assert first == second
    assert first[0]
    assert first[1] != pytest.approx(network()[0].weight.sum().item())


def sparse():
    torch.manual_seed(0)
    return nn.ModuleDict({"table": nn.Embedding(10, 4, sparse=True), "head": nn.Linear(4, 1)})


class _Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = sparse()

    def forward(self, indices):
        return self.parts["head"](self.parts["table"](indices))


def _sparse_gradients(rank):
    gradients = []
    for shares in (False, True):
        model = DistributedDataParallel(_Sparse())
        if shares:
            assert share_gradients(model, SECONDS) is not None
        model(torch.tensor([rank, 3])).sum().backward()
        table, head = (model.module.parts[name].weight.grad for name in ("table", "head"))
        gradients.append((table.to_dense(), head))
    return all(map(torch.equal, *gradients))


def test_sparse_gradients_go_the_old_way(tmp_path):
    assert in_two(_sparse_gradients, tmp_path) == (True, True)


def _frozen_before_sharing(rank):
    gradients = []
    for shares in (False, True):
        model = DistributedDataParallel(network(), find_unused_parameters=True)
        model.module[0].requires_grad_(False)  # its place in the bucket stays
        means = share_gradients(model, SECONDS) if shares else None
        assert (means is not None) == shares
        model(values_of(rank, torch.float32, 40).view(2, 20)).sum().backward()
        gradients.append(model.module[2].weight.grad)
    return torch.equal(*gradients), gradients[0].any().item()


def test_more_gradients_than_there_is_room_for_go_the_old_way(tmp_path):
    assert in_two(_frozen_before_sharing, tmp_path) == ((True, True),) * 2


def _mapped():
    return Path("/proc/self/maps").read_text().count("zoo-")


def _kept(rank):
    """Of three fits that have ended, what is still there; and of one under way."""
    models = []
    for _ in range(3):
        model = DistributedDataParallel(network())
        means = share_gradients(model, SECONDS)
        model(torch.ones(2, 20)).sum().backward()
        means.close()
        during = _mapped()
        models.append(weakref.ref(model))
        del model, means
        gc.collect()
    return [model() is None for model in models], during, _mapped()


def test_models_and_their_memory_are_freed(tmp_path):
    assert in_two(_kept, tmp_path) == (([True] * 3, 1, 0),) * 2


# ---------------------------------------------------------------------- where it is not possible


def _refused(rank, what):
    if what == "no room":
        shared_memory._RAM_DISK = "/does/not/exist"
        shared_memory.tempfile.mkdtemp = lambda **_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    elif what == "no sockets" and rank == 0:
        shared_memory.socket.socket = lambda *_: (_ for _ in ()).throw(OSError(24, "Too many open files"))
    elif what == "another machine" and rank == 1:
        shared_memory.secrets.compare_digest = lambda *_: False
    elif what == "too much":
        shared_memory.LARGEST = 100
    elif what == "no memory for one" and rank == 1:
        shared_memory.mmap.mmap = lambda *_: (_ for _ in ()).throw(OSError(12, "Cannot allocate memory"))
    model = DistributedDataParallel(network())
    answer = share_gradients(model, SECONDS)
    model(torch.ones(2, 20) * (rank + 1)).sum().backward()  # and it is trained all the same
    return answer is None, model.module[2].bias.grad.tolist()


@pytest.mark.parametrize("what", ["no room", "no sockets", "another machine", "too much", "no memory for one"])
def test_where_one_cannot_both_use_gloo(tmp_path, what):
    assert in_two(_refused, tmp_path, what) == ((True, [2.0, 2.0, 2.0]),) * 2


@pytest.mark.parametrize("has_ram_disk", [True, False])
def test_nothing_is_left_behind(tmp_path, monkeypatch, has_ram_disk):
    disks = [tmp_path / "ram", tmp_path / "temporary"]
    for disk in disks[not has_ram_disk :]:
        disk.mkdir()
    monkeypatch.setattr(shared_memory, "_RAM_DISK", str(disks[0]))
    monkeypatch.setattr(tempfile, "tempdir", str(disks[1]))
    assert in_two(_means, tmp_path)[0][0]
    assert [disk.exists() and list(disk.iterdir()) for disk in disks] == [[] if has_ram_disk else False, []]


def _started(rank, has_hook):
    model = DistributedDataParallel(network())
    if has_hook:
        model.register_comm_hook(None, allreduce_hook)
    strategy = DDPStrategy(parallel_devices=[torch.device("cpu")] * 2)
    strategy.model = model
    callback = LeanLoop()
    callback.on_train_start(SimpleNamespace(strategy=strategy), model.module)
    is_shared = callback._means is not None
    model(torch.ones(2, 20) * (rank + 1)).sum().backward()
    callback.on_exception(None, None, None)
    return is_shared, callback._means, model.module[2].bias.grad.tolist()


@pytest.mark.parametrize("has_hook", [False, True])
def test_a_communication_hook_of_somebody_elses_is_kept(tmp_path, has_hook):
    assert in_two(_started, tmp_path, has_hook) == ((not has_hook, None, [2.0, 2.0, 2.0]),) * 2


# ---------------------------------------------------------------------- a rank that does something else


def _ends_early(rank):
    means = SharedMemoryMean.connect(100, SECONDS)
    means.mean_(torch.ones(3))
    if rank == 1:
        means.close()
        return "left"
    return means.mean_(torch.ones(3)).tolist()


def test_a_rank_that_leaves_is_not_waited_for(tmp_path):
    assert in_two(_ends_early, tmp_path) == ("PeerError: the other process has left", "left")


def _backward_alone(rank):
    model = DistributedDataParallel(network())
    means = share_gradients(model, SECONDS)
    if rank == 1:
        means.close()
        return "left"
    model(torch.ones(2, 20)).sum().backward()
    return "went on"


def test_a_backward_pass_says_that_the_other_process_has_left(tmp_path):
    words, left = in_two(_backward_alone, tmp_path)
    assert "the other process has left" in words
    assert left == "left"


def _other_size(rank):
    means = SharedMemoryMean.connect(100, SECONDS)
    return means.mean_(torch.ones(3 + rank)).tolist()


def test_a_rank_that_leaves_is_not_waited_for_while_its_forks_live():
    here, there = socket.socketpair()
    slots = torch.zeros(2, 2, 64, dtype=torch.uint8)
    with here, there, there.dup():  # as a loader's worker has it
        here.settimeout(SECONDS)
        SharedMemoryMean(1, slots, there).close()
        with pytest.raises(PeerError, match="has left"):
            SharedMemoryMean(0, slots, here).mean_(torch.ones(2))


def test_leaving_twice_is_no_error():
    here, there = socket.socketpair()
    with there:
        means = SharedMemoryMean(0, torch.zeros(2, 2, 64, dtype=torch.uint8), here)
        means.close()
        means.close()
        with pytest.raises(PeerError, match="has left"):
            means.mean_(torch.ones(2))


def test_tensors_of_different_sizes_are_no_mean(tmp_path):
    assert in_two(_other_size, tmp_path) == ("PeerError: the other process averages something else",) * 2


def test_a_rank_that_does_not_come_is_told_so():
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(0.1)
        means = SharedMemoryMean(0, torch.zeros(2, 2, 64, dtype=torch.uint8), here)
        with pytest.raises(PeerError, match="did not come for 0 seconds"):
            means.mean_(torch.ones(2))


def test_the_slower_rank_still_reads_what_the_faster_one_wrote():
    """The faster one is a turn ahead, and writes where the slower one does not read any more."""
    here, there = socket.socketpair()
    slots = torch.zeros(2, 2, 64, dtype=torch.uint8)
    with here, there:
        fast, slow = SharedMemoryMean(0, slots, here), SharedMemoryMean(1, slots, there)
        results = []
        thread = threading.Thread(
            target=lambda: results.extend(fast.mean_(torch.tensor([value])).item() for value in (2.0, 4.0, 8.0))
        )
        thread.start()
        found = [slow.mean_(torch.tensor([0.0])).item() for _ in range(3)]
        thread.join(SECONDS)
    assert found == results == [1.0, 2.0, 4.0]
