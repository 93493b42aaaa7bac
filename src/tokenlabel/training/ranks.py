"""The processes of a run: one, or as many as torchrun started, joined by torch.distributed."""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tokenlabel.errors import InputError
from tokenlabel.models.arithmetic import autocast, native_arithmetic
from tokenlabel.models.device import resolve_device
from tokenlabel.runs.recipe import BaseRecipe, Engine
from tokenlabel.torchrun import rank_and_world

__all__ = ["PRECISION_OF", "Ranks", "accumulation"]

_CPU_BATCH = 64  # more at once are no quicker on a CPU, and take more memory
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISION_OF = {dtype: name for name, dtype in _DTYPES.items()}
"""Precisions as recipes name them."""


def accumulation(recipe: BaseRecipe, world_size: int, most: int) -> int:
    """How many passes of equal size a rank makes for one update. Raises InputError if none fits.

    A pass has at most `most` images, and two or more, so that they can be mixed; one only where it was
    asked for (`most` is 1, or there are as many ranks as images) and nothing is mixed.
    """
    total = recipe.schedule.batch_size
    share, left = divmod(total, world_size)
    if left or not share:
        raise InputError(
            f"a batch of {total} images cannot be divided evenly among {world_size} ranks:"
            " choose another schedule.batch_size"
        )
    alone = 1 in (share, most) and not recipe.mixes
    least = 1 if alone else 2
    for passes in range(1, share + 1):
        if share % passes == 0 and least <= share // passes <= most:
            return passes
    raise InputError(
        f"schedule.batch_size = {total} ({share} images a rank) has no division into equal passes of"
        f" {least} to engine.device_batch = {most} images: choose a batch size that is a multiple of"
        " the device batch, or a larger device batch"
    )


class Ranks:
    """What the processes do together. Needs no process group where torchrun started none."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.device = resolve_device(engine.device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        _, world = rank_and_world()
        self.joined = "WORLD_SIZE" in os.environ  # torchrun's one process is a group too
        if self.joined and not distributed.is_initialized():
            _join(self.device, world)
        self.count = world
        self.rank = distributed.get_rank() if self.joined else 0
        self.precision: str = engine.precision
        if engine.precision == "auto":
            # `fit` takes a begun run's, or tries which is quicker on a CPU
            self.precision = PRECISION_OF[native_arithmetic(self.device)]
        self.device_batch: int = sys.maxsize  # images at once; `fit` finds out how many a GPU takes
        if isinstance(engine.device_batch, int):
            self.device_batch = engine.device_batch
        elif self.device.type == "cpu":
            self.device_batch = _CPU_BATCH
        self._members = self.gather((socket.gethostname(), os.getpid()))

    @cached_property
    def scaler(self) -> torch.amp.GradScaler | None:
        """Of the loss in the run's `precision`, which must be settled when this is first asked for."""
        return torch.amp.GradScaler(self.device.type) if self.precision == "fp16" else None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a CPU tensor over all ranks, in place."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    def max(self, tensor: Tensor) -> Tensor:
        """The largest of a CPU tensor over all ranks, in place."""
        if self.count > 1:
            distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return tensor

    def memory_gb(self) -> float:
        """The most memory used so far: the GPU's, or the process's where there is none."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30
        unit = 1 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30

    def gather(self, value: Any) -> list[Any]:
        """Every rank's plain value, by rank."""
        values: list[Any] = [None] * self.count
        if self.count == 1:
            return [value]
        distributed.all_gather_object(values, value)
        return values

    def agree(self, value: str, what: str) -> None:
        """Raises InputError on every rank where the ranks' values differ."""
        values = self.gather(value)
        odd = [str(rank) for rank, other in enumerate(values) if other != values[0]]
        if odd:
            raise InputError(
                f"rank {', '.join(odd[:4])} has other {what} than rank 0: every rank must see the"
                " same files"
            )

    def lost_one(self) -> bool:
        """Whether another rank's process, on this machine, is no more."""
        here = socket.gethostname()
        ended = [not _alive(pid) for host, pid in self._members if host == here]
        return any(ended)

    def wait(self) -> None:
        self.sum(torch.zeros(1))

    # -- modules ---------------------------------------------------------------------------------

    def distribute(self, task: nn.Module) -> nn.Module:
        """The task on this rank's device, its gradients averaged over the ranks."""
        if self.engine.sync_batchnorm and self.joined:
            if self.device.type == "cpu":
                raise InputError("engine.sync_batchnorm works on GPUs only")
            nn.SyncBatchNorm.convert_sync_batchnorm(task)  # type: ignore[no-untyped-call]
        task.to(self.device)
        if self.engine.sharding == "fsdp":
            return self.shard(task)
        if not self.joined:
            return task
        # of all buffers, only batch norm's statistics come to differ between ranks
        statistics = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in task.modules())
        own = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            task, device_ids=own, gradient_as_bucket_view=True, broadcast_buffers=statistics
        )

    def shard(self, module: nn.Module) -> nn.Module:
        """FSDP2: every block of a stack is gathered for its own computation, the rest together."""
        if self.precision == "fp16":
            raise InputError("engine.sharding=fsdp goes with precision bf16 or fp32, not fp16")
        if not self.joined:
            return module
        mesh = init_device_mesh(self.device.type, (self.count,))
        for block in _blocks(module):
            fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh)
        return module

    def whole(self, tensor: Tensor) -> Tensor:
        """A tensor that may be sharded over the ranks, whole on each."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.device, _DTYPES[self.precision])

    def backward(self, loss: Tensor) -> None:
        torch.autograd.backward(loss if self.scaler is None else self.scaler.scale(loss))

    def gradients(self, task: nn.Module, *, reduced: bool) -> AbstractContextManager[Any]:
        """Around a pass: whether its backward sums gradients over ranks (the last pass of an update)."""
        if isinstance(task, FSDPModule):
            task.set_requires_gradient_sync(reduced)
            return nullcontext()
        if reduced or not isinstance(task, DistributedDataParallel):
            return nullcontext()
        context: AbstractContextManager[Any] = task.no_sync()
        return context


def _join(device: torch.device, world: int) -> None:
    """Start the process group."""
    # gloo beside nccl, so that ranks can agree on small matters without stopping the GPU
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if os.environ.get("LOCAL_WORLD_SIZE") != str(world):
        distributed.init_process_group(backend)  # several machines
        return
    # torchrun may keep its store when it starts ranks again: these must not find the addresses of
    # those before them. (Machines count their restarts each for itself, so only within one.)
    store, rank, _ = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    distributed.init_process_group(
        backend,
        store=distributed.PrefixStore(f"attempt-{attempt}", store),  # type: ignore[attr-defined]
        rank=rank,
        world_size=world,
    )


def _alive(pid: int) -> bool:
    """Whether a process runs; one that ended but whose parent has not noticed does not."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():
        try:
            return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The repeated units of a network: direct children of a container that holds several of a type."""
    found = []
    for container in module.modules():
        if isinstance(container, (nn.Sequential, nn.ModuleList)):
            kinds = Counter(type(child) for child in container)
            found += [
                child
                for child in container
                if kinds[type(child)] > 1 and any(True for _ in child.parameters())
            ]
    return found
