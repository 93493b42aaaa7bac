"""`teach`: fine-tune a timm classifier on a folder of images, to annotate that folder with it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from tokenlabel.data.decode import decode_image
from tokenlabel.data.source import ImageSource
from tokenlabel.errors import InputError, nearest
from tokenlabel.models import build_model
from tokenlabel.progress import progress_bar

__all__ = ["Taught", "teach"]

_SMOOTHING = 0.1


class Taught(NamedTuple):
    folder: Path
    accuracy: float | None  # top-1 on images that were held out, in [0, 1]
    held_out: int


def teach(
    source: ImageSource,
    output: str | Path,
    *,
    model: str,
    pretrained: bool = True,
    model_kwargs: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    epochs: int = 20,
    batch_size: int = 64,
    opt: str = "adamw",
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    min_scale: float = 0.35,
    hflip: bool = True,
    holdout: float = 0.1,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    workers: int = 0,
) -> Taught:
    """Write a classifier of the source's classes to `output`, as timm reads and writes models.

    Random crops of at least `min_scale` of the image (so that it learns to name parts), flips,
    timm's optimiser `opt`, cosine schedule with one warm-up epoch. A share `holdout` of the images is
    not trained on and tells the accuracy. Raises InputError where the model or the data cannot be
    used.
    """
    folder = Path(output)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: remove it, or choose another output folder")
    if opt not in list_optimizers():
        raise InputError(f"unknown optimiser {opt!r}{nearest(opt, list_optimizers())}")
    torch.manual_seed(seed)
    network = build_model(
        model,
        num_classes=len(source.class_names),
        pretrained=pretrained,
        **(model_kwargs or {}),
    ).to(device)
    config = dict(resolve_model_data_config(network))
    if image_size:
        config["input_size"] = (3, image_size, image_size)
    kept, held = _split(len(source), holdout, seed)
    images = {"mean": config["mean"], "std": config["std"], "input_size": config["input_size"]}
    crops = create_transform(
        **images, is_training=True, scale=(min_scale, 1.0), hflip=0.5 * hflip, color_jitter=0.0
    )
    whole = create_transform(**images, crop_pct=1.0, crop_mode="squash")
    train = _loader(_Images(source, kept, crops), batch_size, workers, seed, shuffle=True)
    test = _loader(_Images(source, held, whole), batch_size, workers, seed, shuffle=False)
    optimizer = create_optimizer_v2(network, opt=opt, lr=lr, weight_decay=weight_decay)
    scheduler, epochs = create_scheduler_v2(
        optimizer,
        num_epochs=epochs,
        warmup_epochs=min(1, epochs - 1),
        warmup_lr=lr / 100,
        step_on_epochs=False,
        updates_per_epoch=len(train),
    )
    step = _Step(network, optimizer, scheduler, torch.device(device), dtype)
    with progress_bar() as progress:
        task = progress.add_task(
            "teach", total=epochs * min(len(train) * batch_size, len(kept)), note=""
        )
        for _ in range(epochs):
            for pixels, labels in train:
                loss = step(pixels, labels)
                progress.update(task, advance=len(labels), note=f"loss {loss:.3f}")
    accuracy = _accuracy(network, test, torch.device(device)) if len(held) else None
    _save(network, folder, source.class_names, config["input_size"])
    return Taught(folder, accuracy, len(held))


class _Images(Dataset[tuple[Tensor, int]]):
    def __init__(self, source: ImageSource, indices: Sequence[int], transform: Any) -> None:
        self.source, self.indices, self.transform = source, indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        index = self.indices[place]
        pixels = decode_image(self.source.read(index), self.source.keys[index], self.source.rules)
        return self.transform(Image.fromarray(pixels)), self.source.labels[index]


class _Step:
    """One update of the network; counts updates for the schedule."""

    def __init__(
        self, network: nn.Module, optimizer: Any, scheduler: Any, device: torch.device, dtype: Any
    ) -> None:
        self.network, self.optimizer, self.scheduler = network, optimizer, scheduler
        self.device, self.dtype, self.updates = device, dtype, 0

    def __call__(self, pixels: Tensor, labels: Tensor) -> float:
        self.network.train()
        pixels = pixels.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.network(pixels)
        loss = F.cross_entropy(logits.float(), labels.to(self.device), label_smoothing=_SMOOTHING)
        if not math.isfinite(loss.item()):
            raise InputError("teaching diverged: lower the learning rate")
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.updates += 1
        self.scheduler.step_update(self.updates)
        return loss.item()


@torch.inference_mode()
def _accuracy(network: nn.Module, loader: DataLoader[Any], device: torch.device) -> float:
    network.eval()
    correct = total = 0
    for pixels, labels in loader:
        correct += int((network(pixels.to(device)).argmax(1).cpu() == labels).sum())
        total += len(labels)
    return correct / total


def _split(count: int, holdout: float, seed: int) -> tuple[list[int], list[int]]:
    if not 0 <= holdout < 1:
        raise InputError(f"holdout is a share of the images, at least 0 and below 1, not {holdout}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    held = int(count * holdout)
    if count - held < 2:
        raise InputError(f"{count} images are too few to teach a classifier")
    return order[held:], order[:held]


def _loader(
    images: _Images, batch_size: int, workers: int, seed: int, *, shuffle: bool
) -> DataLoader[Any]:
    # batch norm needs two images; training drops the last, shorter batch if there is another
    return DataLoader(
        images,
        batch_size,
        shuffle=shuffle,
        drop_last=shuffle and len(images) > batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(seed),
    )


def _save(
    network: nn.Module, folder: Path, class_names: Sequence[str], input_size: tuple[int, ...]
) -> None:
    """As one step: a folder that stands is a whole model."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    save_for_hf(
        network.cpu(),
        str(temporary),
        model_config={"label_names": list(class_names)},
        safe_serialization=True,
        data_config={"input_size": input_size, "crop_pct": 1.0},
    )
    if folder.exists():
        folder.rmdir()
    temporary.rename(folder)
