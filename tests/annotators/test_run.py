"""`run` labels each image once, whatever happens on the way and however many take part."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tokenlabel.annotators.classifier import ClassifierSpec
from tokenlabel.annotators.run import run
from tokenlabel.annotators.spec import Network
from tokenlabel.data import decode
from tokenlabel.data.open import open_source
from tokenlabel.data.reading import StorageError
from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore
from tokenlabel.labels.manifest import Manifest
from tokenlabel.labels.shard import shard_name
from tokenlabel.models import arithmetic


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix != ".tmp"}


def test_every_image_gets_the_annotators_label(images, colours, tmp_path) -> None:
    source = open_source(str(images))
    manifest = run(source, colours, tmp_path / "store", shard_size=8, codec="exact")
    store = LabelStore(tmp_path / "store")
    assert list(store) == list(source.keys)
    assert [shard.records for shard in manifest.shards] == [8, 8, 6]
    assert colours.batches == [4, 4, 4, 4, 4, 2]
    assert manifest.class_names == ("cat", "dog", "owl")
    assert manifest.annotator == {"kind": "colours", "batch_size": 4}
    from tokenlabel.data.decode import decode_image

    for index in (0, 9, 21):
        pixels = decode_image(source.read(index), "")
        (expected,) = colours.annotate([colours.prepare("", pixels)])
        assert torch.equal(store[source.keys[index]].classes, expected.classes)


def test_annotators_are_told_how_images_were_turned_by_one_look_at_each(
    images, colours, tmp_path, monkeypatch
) -> None:
    sideways = Image.Exif()
    sideways[0x0112] = 6
    first = images / "cat" / "000.png"
    Image.open(first).save(first, exif=sideways)
    source = open_source(str(images), orientation="apply")
    shown: dict[str, tuple[int, tuple[int, ...]]] = {}
    prepare = colours.prepare

    def noted(key: str, pixels: Any, orientation: int) -> torch.Tensor:
        shown[key] = (orientation, pixels.shape)
        return prepare(key, pixels)

    colours.prepare = noted
    looks = []
    read = decode.read_header
    monkeypatch.setattr(decode, "read_header", lambda *of: looks.append(of[1]) or read(*of))
    run(source, colours, tmp_path / "store")
    assert shown.pop("cat/000.png") == (6, (16, 12, 3))
    assert set(shown.values()) == {(1, (12, 16, 3))}
    assert sorted(looks) == sorted(source.keys)


def _slow_run(images: Path, folder: Path, annotator, pause: float, rank: int, world: int) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world))
    annotate = annotator.annotate
    annotator.annotate = lambda batch: (time.sleep(pause), annotate(batch))[1]
    run(open_source(str(images)), annotator, folder, shard_size=8, threads=1)


def test_kills_lose_and_double_nothing(images, colours, tmp_path) -> None:
    run(open_source(str(images)), colours, tmp_path / "whole", shard_size=8)
    folder, rng = tmp_path / "killed", random.Random(0)
    fork = multiprocessing.get_context("fork")
    for _ in range(15):
        process = fork.Process(target=_slow_run, args=(images, folder, colours, 0.02, 0, 1))
        process.start()
        time.sleep(rng.uniform(0, 0.4))
        process.kill()
        process.join()
    run(open_source(str(images)), colours, folder, shard_size=8)
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_write_the_bytes_of_one(images, colours, tmp_path, world) -> None:
    run(open_source(str(images)), colours, tmp_path / "one", shard_size=8)
    fork, folder = multiprocessing.get_context("fork"), tmp_path / "many"
    processes = [
        fork.Process(target=_slow_run, args=(images, folder, colours, 0.05, rank, world))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert contents(folder) == contents(tmp_path / "one")


def test_unreadable_images_are_left_out_until_they_are_mended(images, colours, tmp_path) -> None:
    run(open_source(str(images)), colours, tmp_path / "whole", shard_size=8)
    victim = images / "dog" / "004.png"
    good = victim.read_bytes()
    victim.write_bytes(good[:50])
    folder = tmp_path / "store"
    for _ in range(2):
        manifest = run(open_source(str(images)), colours, folder, shard_size=8)
        assert [left.key for left in manifest.left_out] == ["dog/004.png"]
        assert "truncated" in manifest.left_out[0].reason
        assert len(LabelStore(folder)) == 21
    victim.write_bytes(good)
    manifest = run(open_source(str(images)), colours, folder, shard_size=8)
    assert manifest.left_out == ()
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_store_is_continued_with_its_own_settings_only(images, colours, tmp_path) -> None:
    source = open_source(str(images))
    run(source, colours, tmp_path / "store", batch_size=3)
    run(source, colours, tmp_path / "store")  # keeps the batch size of 3
    with pytest.raises(InputError, match=r"annotator.batch_size = 3, now it is 5"):
        run(source, colours, tmp_path / "store", batch_size=5, shard_size=258)
    (images / "cat" / "000.png").rename(images / "cat" / "999.png")
    with pytest.raises(InputError, match=r"dataset.fingerprint"):
        run(open_source(str(images)), colours, tmp_path / "store")


def test_the_arithmetic_is_found_out_once_and_kept(images, tmp_path, monkeypatch) -> None:
    source, choices = (
        open_source(str(images)),
        [torch.bfloat16],
    )  # a second trial would find nothing
    monkeypatch.setattr(arithmetic, "_FEWEST", 1)
    monkeypatch.setattr(
        arithmetic,
        "quicker_arithmetic",
        lambda step, count: (step(count, torch.bfloat16), choices.pop())[1],
    )

    def label(folder: str, dtype: Any) -> dict[str, bytes]:
        torch.manual_seed(0)
        spec = ClassifierSpec(
            model="resnet10t",
            pretrained=False,
            model_kwargs={"num_classes": 3},
            network=Network(image_size=32, dtype=dtype, device="cpu"),
        )
        run(source, spec.build(source.class_names), tmp_path / folder, shard_size=32)
        return contents(tmp_path / folder)

    whole = label("auto", "auto")
    assert Manifest.load(tmp_path / "auto").annotator["dtype"] == "bfloat16"
    assert whole == label("half", "bfloat16")
    assert whole[shard_name(0)] != label("single", "float32")[shard_name(0)]
    manifest = Manifest.load(tmp_path / "auto").model_copy(update={"complete": False, "shards": ()})
    manifest.save(tmp_path / "auto")  # as a kill leaves it
    (tmp_path / "auto" / shard_name(0)).unlink()
    assert label("auto", "auto") == whole
    with pytest.raises(InputError, match=r"annotator.dtype = 'bfloat16', now it is 'float32'"):
        label("auto", "float32")


def test_scores_that_are_no_numbers_are_named(images, colours, tmp_path) -> None:
    good = colours.prepare
    colours.prepare = lambda key, pixels, orientation: torch.full((3, 2, 2), float("nan"))
    with pytest.raises(InputError, match=r"label of cat/000.png cannot be stored: scores must be"):
        run(open_source(str(images)), colours, tmp_path / "store")
    colours.prepare = good  # what failed can be continued, in this very process too
    assert run(open_source(str(images)), colours, tmp_path / "store").shards[0].records == 22


def test_storage_that_does_not_answer_stops_the_run_and_leaves_nothing_out(
    images, colours, tmp_path, monkeypatch
) -> None:
    source = open_source(str(images))
    read = type(source).read

    def silent(self, index: int) -> bytes:
        if index == 5:
            raise StorageError("cannot read cat/005.png: Stale file handle")
        return read(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(type(source), "read", silent)
        with pytest.raises(StorageError, match="Stale file handle"):
            run(source, colours, tmp_path / "store", shard_size=8)
    manifest = run(source, colours, tmp_path / "store", shard_size=8)
    assert manifest.left_out == ()
    assert manifest.dataset["found"]["images"] == 22
    assert manifest.settings["dataset"].keys() == {"fingerprint", "samples"}
