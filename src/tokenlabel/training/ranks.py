"""The processes of a run: one, or as many as torchrun started, joined by accelerate."""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from tokenlabel.errors import InputError, nearest
from tokenlabel.runs.plan import Plan
from tokenlabel.runs.recipe import Engine
from tokenlabel.runs.recipe_file import flat

__all__ = ["Ranks", "accumulation"]


def accumulation(recipe: Plan, world_size: int) -> int:
    """How many passes of equal size a rank makes for one update. Raises InputError if none fits."""
    total, most = recipe.schedule.batch_size, recipe.engine.device_batch
    share, left = divmod(total, world_size)
    if left or not share:
        raise InputError(
            f"a batch of {total} images cannot be divided evenly among {world_size} ranks:"
            " choose another schedule.batch_size"
        )
    divisors = (passes for passes in range(1, share + 1) if share % passes == 0)
    return next(passes for passes in divisors if share // passes <= most)


class Ranks:
    """What the processes do together. Needs no process group when there is one process only."""

    def __init__(self, engine: Engine, trackers: tuple[str, ...] = (), folder: str = ".") -> None:
        self.engine = engine
        _check_trackers(trackers)
        cpu = engine.device == "cpu" or not torch.accelerator.is_available()
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world > 1 and not distributed.is_initialized():
            _join(cpu, world)
        # a second run in one process may want another precision, which accelerate refuses otherwise
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(
            cpu=cpu,
            mixed_precision={"fp32": "no"}.get(engine.precision, engine.precision),
            log_with=list(trackers) or None,
            project_config=ProjectConfiguration(folder, logging_dir=str(Path(folder) / "trackers")),
        )
        if self.accelerator.num_processes != world:
            raise InputError(
                f"{world} ranks were started but they did not find each other: start with torchrun"
            )

    @property
    def device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def count(self) -> int:
        return int(self.accelerator.num_processes)

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
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    @contextmanager
    def tracking(self, recipe: Plan) -> Iterator[None]:
        """The trackers of a run, from its first to its last number."""
        if not recipe.trackers:
            yield
            return
        self.accelerator.init_trackers(recipe.name, config=_scalars(recipe))
        try:
            yield
        finally:  # not accelerate's end_training, which would also part the ranks
            for tracker in self.accelerator.trackers:
                tracker.finish()

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    # -- modules ---------------------------------------------------------------------------------

    def distribute(self, task: nn.Module) -> nn.Module:
        """The task on this rank's device, its gradients averaged over the ranks."""
        if self.engine.sync_batchnorm and self.count > 1:
            if self.device.type == "cpu":
                raise InputError("engine.sync_batchnorm works on GPUs only")
            nn.SyncBatchNorm.convert_sync_batchnorm(task)  # type: ignore[no-untyped-call]
        task.to(self.device)
        if self.engine.sharding == "fsdp":
            return self.shard(task)
        if self.count == 1:
            return task
        # of all buffers, only batch norm's statistics come to differ between ranks
        statistics = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in task.modules())
        self.accelerator.ddp_handler = DistributedDataParallelKwargs(
            gradient_as_bucket_view=True, broadcast_buffers=statistics
        )
        distributed_task: nn.Module = self.accelerator.prepare_model(task)
        return distributed_task

    def shard(self, module: nn.Module) -> nn.Module:
        """FSDP2: every block of a stack is gathered for its own computation, the rest together."""
        if self.engine.precision == "fp16":
            raise InputError("engine.sharding=fsdp goes with precision bf16 or fp32, not fp16")
        if self.count == 1:
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
        context: AbstractContextManager[Any] = self.accelerator.autocast()
        return context

    def gradients(self, task: nn.Module, *, reduced: bool) -> AbstractContextManager[Any]:
        """Around a pass: whether its backward sums gradients over ranks (the last pass of an update)."""
        if isinstance(task, FSDPModule):
            task.set_requires_gradient_sync(reduced)
            return nullcontext()
        if reduced or self.count == 1:
            return nullcontext()
        context: AbstractContextManager[Any] = self.accelerator.no_sync(task)
        return context


def _join(cpu: bool, world: int) -> None:
    """Start the process group, before accelerate does."""
    if not cpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # gloo beside nccl, so that ranks can agree on small matters without stopping the GPU
    backend = "gloo" if cpu else "cpu:gloo,cuda:nccl"
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


def _check_trackers(wanted: tuple[str, ...]) -> None:
    installed = {str(tracker) for tracker in get_available_trackers()}
    for name in wanted:
        if name not in installed:
            raise InputError(
                f"no tracker {name!r}{nearest(name, installed)};"
                f" installed: {', '.join(sorted(installed))}"
            )


def _scalars(recipe: Plan) -> dict[str, Any]:
    """The recipe's values as trackers take them."""
    return {
        path: value if isinstance(value, (bool, int, float, str)) else str(value)
        for path, value in flat(recipe).items()
    }


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
