"""`tokenlabel doctor`: the environment, and what is wrong with it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["doctor"]

_LIBRARIES = ("tokenlabel", "torch", "torchvision", "timm", "accelerate", "numpy", "pillow")
_EXTRAS = {
    "seg": "transformers",
    "export": "onnxruntime",
    "text": "open_clip",
    "data": "datasets",
    "track": "trackio",
    "s3": "s3fs",
}
_GIB = 2**30
_SHARED_MEMORY = 1 * _GIB  # of what loader processes pass images through
_OPEN_FILES = 1024


def doctor(*, data: str | None = None, split: str | None = None, labels: str | None = None) -> int:
    """Check the environment for problems; with --data, check a data set.

    Exits with 1 if a problem was found. Include the output in bug reports.

    Args:
        data: Also decode every image of this data set. Lists unreadable images, duplicates across
            splits or classes, and small classes. Suggests annotator and student, and estimates disk
            space and time.
        split: Split to check (default: the training and the validation split).
        labels: Also check this label store: is it complete, and does it label all of the data?
    """
    print(f"python       {platform.python_version()} on {platform.platform()}")
    for name in _LIBRARIES:
        print(f"{name:<13}{_version(name) or 'missing'}")
    installed = [extra for extra, module in _EXTRAS.items() if importlib.util.find_spec(module)]
    print(f"extras       {', '.join(installed) or 'none'}")
    print(f"processors   {len(os.sched_getaffinity(0)) if _linux() else os.cpu_count()}")
    problems = [*_libraries(), *_machine()]
    if not any("torch" in problem for problem in problems):
        print(f"accelerator  {_accelerator()}")
    if data is not None or labels is not None:
        problems += _contents(data, split, labels)
    print()
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print("no problem found" if not problems else f"problems found: {len(problems)}")
    return 1 if problems else 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _linux() -> bool:
    return sys.platform.startswith("linux")


def _libraries() -> Iterator[str]:
    """Requirements that are not met, and a torch and torchvision that do not go together."""
    from packaging.requirements import Requirement

    for line in importlib.metadata.requires("tokenlabel") or ():
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        found = _version(wanted.name)
        if found is None or not wanted.specifier.contains(found, prereleases=True):
            yield (
                f"tokenlabel needs {wanted.name}{wanted.specifier}, found {found or 'none'}:"
                f" pip install --upgrade '{wanted.name}{wanted.specifier}'"
            )
    try:
        import torch  # noqa: F401
        import torchvision.ops  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        yield (
            f"torch and torchvision do not work together ({' '.join(str(error).split())}):"
            " install both anew, from the same place"
        )


def _machine() -> Iterator[str]:
    """Limits that training runs into."""
    if _linux():
        import resource

        shared = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0
        if shared < _SHARED_MEMORY:
            yield (
                f"only {shared / _GIB:.1f} GiB of shared memory for loader processes: start the"
                " container with --shm-size=8g or --ipc=host, or use data.workers=0"
            )
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if 0 <= files < _OPEN_FILES:
            yield f"only {files} open files are allowed: run `ulimit -n 65536` first"
    free = shutil.disk_usage(Path.cwd()).free
    if free < _GIB:
        yield f"only {free / _GIB:.1f} GiB of disk are free in {Path.cwd()}"
    if not os.access(Path.cwd(), os.W_OK):
        yield f"{Path.cwd()} cannot be written to: change to another folder"


def _accelerator() -> str:
    import torch

    kind = torch.accelerator.current_accelerator(check_available=True)
    if kind is None:
        return "none: all runs on the CPU"
    count = torch.accelerator.device_count()
    if kind.type != "cuda":
        return f"{count} x {kind.type}"
    names = sorted({torch.cuda.get_device_name(i) for i in range(count)})
    memory = torch.cuda.get_device_properties(0).total_memory / _GIB
    return f"{count} x {', '.join(names)}, {memory:.0f} GiB, CUDA {torch.version.cuda}"


def _contents(data: str | None, split: str | None, labels: str | None) -> Iterator[str]:
    """What is wrong with images and labels."""
    from tokenlabel.errors import InputError

    source = store = None
    try:
        if data is not None:
            from tokenlabel.api.advice import advise
            from tokenlabel.data.check import check_images
            from tokenlabel.data.open import open_images, open_validation

            source = open_images(data, split, "train")
            parts = {source.found.part or "data": source}
            held_out = open_validation(data) if split is None and source.found.part else None
            if held_out is not None:
                parts[held_out.found.part or "validation"] = held_out
            for part in parts.values():
                print(f"data         {part.found.line()}")
            checked = check_images(parts)
            yield from checked.problems
            for line in advise(source, data, checked.per_second):
                print(line)
        if labels is not None:
            from tokenlabel.labels import LabelStore

            store = LabelStore(labels)
            print(f"labels       {len(store):,} images labeled with {store.num_classes:,} classes")
    except InputError as error:
        yield str(error)
        return
    if source is None or store is None:
        return
    without = [key for key in source.keys if key not in store]
    if without:
        yield (
            f"{len(without)} of {len(source)} images have no label, {without[0]} for one:"
            " run `tokenlabel annotate` on the same folder again"
        )
    if len(source.class_names) != store.num_classes:
        yield (
            f"the images have {len(source.class_names)} classes, the labels {store.num_classes}:"
            " annotate again without --keep-classes"
        )
