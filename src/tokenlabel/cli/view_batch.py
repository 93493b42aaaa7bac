"""The verb `tokenlabel view-batch`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["view_batch"]


def view_batch(
    *,
    data: str,
    labels: str | None = None,
    split: str | None = None,
    output: Path = Path("view-batch.png"),
    count: int = 12,
    image_size: int = 224,
    grid: int = 14,
    policy: str | None = "rand-m9-mstd0.5-inc1",
    erasing: float = 0.25,
    seed: int = 0,
    epoch: int = 0,
) -> Path:
    """Draw what the student will see in training, as one picture.

    Each row shows an image with the outline of its random crop, the same under the colors of its
    label map, then what reaches the student and the targets of its tokens. If the colors of the
    last two columns do not fit the picture, neither would the training.

    Args:
        data: Folder, tar, WebDataset shards or Hugging Face data set.
        labels: Label store made by `tokenlabel annotate`; without it only the images are shown.
        split: Part of the data set, where it has parts; the training part by default.
        output: The picture to write.
        count: How many images.
        image_size: Side of the student's input, in pixels.
        grid: Tokens on a side of the student's input.
        policy: Augmentation policy in timm's notation.
        erasing: Probability of erasing a random rectangle.
        seed: The run's seed: the same seed and epoch show what training draws.
        epoch: The epoch to look into.
    """
    from PIL import Image

    from tokenlabel.data.augment import Augmentation
    from tokenlabel.data.loader import Targets, train_loader
    from tokenlabel.data.matching import orientation_of
    from tokenlabel.data.open import announce, open_images
    from tokenlabel.errors import InputError
    from tokenlabel.files import replacing
    from tokenlabel.labels import LabelStore
    from tokenlabel.pictures.contact_sheet import contact_sheet

    if min(count, image_size, grid) < 1:
        raise InputError("count, image-size and grid must each be at least 1")
    store = LabelStore(labels) if labels else None
    orientation = orientation_of(store.manifest) if store else "ignore"
    source = open_images(data, split, "train", orientation=orientation)
    announce(source, data)
    loader = train_loader(
        source,
        Augmentation(policy=policy, erasing=erasing),
        image_size=(image_size, image_size),
        batch_size=min(count, len(source)),
        targets=Targets(labels=store, grid=(grid, grid)) if store else None,
        seed=seed,
    )
    sheet = contact_sheet(loader, source.class_names, epoch)
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as aside:
        sheet.save(aside, format=Image.registered_extensions().get(output.suffix.lower(), "PNG"))
    print(f"written to {output}")
    return output
