"""Packed images have the same keys, classes and places; packing is shared, resumed, never mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel.data import pack as pack_module
from tokenlabel.data.augment import Augmentation
from tokenlabel.data.decode import decode_image
from tokenlabel.data.loader import train_loader
from tokenlabel.data.open import open_images, open_source
from tokenlabel.data.pack import pack_images
from tokenlabel.data.samples import Targets
from tokenlabel.data.source import ImageSource, source_fingerprint
from tokenlabel.errors import InputError


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_packed_images_are_those_of_the_source(source: ImageSource, tmp_path: Path) -> None:
    done = pack_images(source, tmp_path / "p", short_side=48, shard_size=10)
    assert (done.images, done.left_out, done.complete) == (26, {}, True)
    for place in ("p", "p/images.json", "p/images-{00000..00002}.tar"):
        packed = open_source(str(tmp_path / place))
        assert sorted(packed.keys) == sorted(source.keys)
        assert packed.class_names == source.class_names
    where = {key: i for i, key in enumerate(packed.keys)}
    for i, key in enumerate(source.keys):
        here, data = where[key], source.read(i)
        assert packed.labels[here] == source.labels[i]
        whole = decode_image(data, key)
        small = decode_image(packed.read(here), key)
        if min(whole.shape[:2]) <= 48:
            assert packed.read(here) == data
        else:
            assert min(small.shape[:2]) == 48
            # the shape is kept within half a pixel: 0.05 of 14 tokens
            ratio = small.shape[0] / small.shape[1] * whole.shape[1] / whole.shape[0]
            assert abs(ratio - 1) < 0.5 / 48
            size = (small.shape[1], small.shape[0])
            expected = np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.BICUBIC))
            assert np.abs(small.astype(int) - expected).mean() < 3


def test_labels_of_the_originals_are_labels_of_the_copies(
    source: ImageSource, make_labels, tmp_path: Path
) -> None:
    pack_images(source, tmp_path / "p", short_side=48, form="raw")
    packed, labels = open_source(str(tmp_path / "p")), make_labels()
    middle = Augmentation(policy=None, scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0)
    batches = [
        next(
            iter(
                train_loader(
                    images,
                    middle,
                    image_size=(32, 32),
                    batch_size=26,
                    targets=Targets(labels=labels, grid=(4, 4)),
                )
            )
        )
        for images in (source, packed)
    ]
    a, b = batches
    order = [b.keys.index(key) for key in a.keys]
    difference = (a.images.float() - b.images[order].float()).abs().mean()
    assert difference < 6
    assert a.target is not None
    assert b.target is not None
    torch.testing.assert_close(a.target.dense(), b.target.dense()[order], atol=0.05, rtol=0)


def test_parts_go_into_one_folder(make: type, tmp_path: Path) -> None:
    make.write_files(
        tmp_path / "d", ["train/a/1.png", "train/b/2.png", "val/a/3.png", "val/b/4.png"]
    )
    for split in ("train", "val"):
        pack_images(open_images(str(tmp_path / "d"), split), tmp_path / "p", short_side=8)
    assert open_images(str(tmp_path / "p"), part="train").keys == ["a/1.png", "b/2.png"]
    assert open_images(str(tmp_path / "p"), part="val").keys == ["a/3.png", "b/4.png"]
    with pytest.raises(InputError, match="was started with short_side = 8, now it is 9"):
        pack_images(open_images(str(tmp_path / "d"), "val"), tmp_path / "p", short_side=9)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").touch()
    with pytest.raises(InputError, match="not empty"):
        pack_images(open_images(str(tmp_path / "d"), "val"), tmp_path / "other", short_side=9)


def test_ranks_and_interruptions_change_no_byte(
    source: ImageSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_images(source, tmp_path / "whole", short_side=40, shard_size=6)
    packed = pack_module._packed

    def fails(source: ImageSource, index: int, how: object) -> bytes:
        if index == 14:
            raise KeyboardInterrupt
        return packed(source, index, how)  # type: ignore[arg-type]

    monkeypatch.setattr(pack_module, "_packed", fails)
    monkeypatch.setattr(pack_module, "_check_space", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        pack_images(source, tmp_path / "p", short_side=40, shard_size=6)
    written: list[int] = []
    monkeypatch.setattr(
        pack_module, "_packed", lambda s, i, how: written.append(i) or packed(s, i, how)
    )
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert pack_images(source, tmp_path / "p", short_side=40, shard_size=6).complete
    assert min(written) == 12  # two shards were whole
    assert files(tmp_path / "p") == files(tmp_path / "whole")


def test_what_cannot_be_decoded_is_left_out_and_tags_are_kept(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "d" / f"c{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[274] = 6
        Image.new("RGB", (60, 40), (number * 50, 9, 9)).save(path, exif=exif)
    path.write_bytes(path.read_bytes()[:200])
    done = pack_images(open_source(str(tmp_path / "d")), tmp_path / "p", short_side=20)
    assert list(done.left_out) == ["c1/3.jpg"]
    assert done.images == 3
    for orientation, size in (("ignore", (20, 30)), ("apply", (30, 20))):
        packed = open_source(str(tmp_path / "p"), orientation=orientation)
        image = decode_image(packed.read(0), packed.keys[0], packed.rules)
        assert image.shape[:2] == size


def test_one_name_with_two_suffixes_needs_one_class(make: type, tmp_path: Path) -> None:
    make.write_files(tmp_path / "d", ["a/1.png", "a/1.bmp", "b/2.png"])
    pack_images(open_source(str(tmp_path / "d")), tmp_path / "p", short_side=8)
    assert len(open_source(str(tmp_path / "p"))) == 3
    (tmp_path / "l.csv").write_text("path,label\nd/a/1.png,x\nd/a/1.bmp,y\n")
    with pytest.raises(InputError, match="differ in their suffix alone"):
        pack_images(open_source(str(tmp_path / "l.csv")), tmp_path / "q", short_side=8)


@pytest.mark.parametrize("names", [("cat", "dog", "sun"), ("0", "1", "2")])
def test_images_of_several_classes_keep_them(
    make: type, tmp_path: Path, names: tuple[str, str, str]
) -> None:
    a, b, c = names
    make.write_files(tmp_path, ["1.png", "2.png", "3.png", "4.png"])
    rows = (f"1.png,{b};{a}", f"2.png,{c}", "3.png,", f"4.png,{a};{c}")
    (tmp_path / "l.csv").write_text("\n".join(("path,labels", *rows)))
    source = open_source(str(tmp_path / "l.csv"))
    pack_images(source, tmp_path / "p", short_side=8)
    packed = open_source(str(tmp_path / "p"))
    assert packed.several == source.several == [(1, 0), (2,), (), (0, 2)]
    assert source_fingerprint(packed) == source_fingerprint(source)
