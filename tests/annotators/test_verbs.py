"""The verbs `annotate`, `teach` and `labels ...`, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tokenlabel.cli.main import main
from tokenlabel.errors import InputError
from tokenlabel.labels import LabelStore

TINY = ["output_stride", "16", "stem_width", "8", "num_classes", "3"]


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(word) for word in words])
    return int(exit_.value.code)


@pytest.fixture
def store(images, tmp_path) -> Path:
    folder = tmp_path / "store"
    options = ["--image-size", 32, "--model-kwargs", *TINY, "--no-pretrained", "--top-k", 2]
    assert (
        run("annotate", "--data", images, "--output", folder, "--model", "resnet10t", *options) == 0
    )
    return folder


def test_annotate_then_look_at_the_labels(images, store, tmp_path, capsys) -> None:
    assert len(LabelStore(store)) == 22
    assert run("labels", "info", "--labels", store) == 0
    assert run("labels", "verify", "--labels", store) == 0
    assert run("labels", "diff", "--first", store, "--second", store) == 0
    pictures = tmp_path / "health"
    code = run("labels", "health", "--labels", store, "--data", images, "--output", pictures)
    found = json.loads((pictures / "health.json").read_text())
    assert code == bool(found["warnings"])
    assert len(list(pictures.glob("*.png"))) == 5
    said = " ".join(capsys.readouterr().out.split())
    assert "2 x 2 cells, top 2" in said
    assert "no faults in 22 labels" in said
    assert "same best class: 100.00%" in said


def test_export_then_import_through_the_verbs(images, store, tmp_path, capsys) -> None:
    tree = tmp_path / "tree"
    assert run("labels", "export", "--labels", store, "--output", tree) == 0
    assert torch.load(tree / "cat" / "000.pt").shape == (2, 2, 2, 2)
    (tree / "cat" / "000.pt").unlink()
    again = tmp_path / "again"
    words = ["--tree", tree, "--data", images, "--output", again, "--extent", "whole"]
    assert run("labels", "import", *words) == 3
    assert "21 of 22 images have labels" in " ".join(capsys.readouterr().out.split())


def test_unreadable_images_end_with_exit_code_3(images, tmp_path, capsys) -> None:
    from PIL import Image

    (images / "dog" / "004.png").write_bytes(b"nonsense")
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in images.rglob("*.png"):
        Image.new("L", (16, 12), 1).save(masks / path.name)
    words = ["--data", images, "--output", tmp_path / "store", "--folder", masks]
    assert run("annotate", "masks", *words) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "left out dog/004.png: cannot identify image file " in said
    assert "run the same command again" in said


def test_mistakes_end_with_exit_code_2(images, tmp_path, capsys) -> None:
    words = ["annotate", "--data", images, "--output", tmp_path / "store"]
    assert run(*words) == 2
    assert "--model" in capsys.readouterr().err
    assert run(*words, "--model", "resnet10t", "--grid", 3, 3) == 2  # another kind's option
    assert "--grid" in capsys.readouterr().err
    assert run(*words, "--model", "resnet10x") == 2
    assert "did you mean" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
    assert run("labels", "info", "--labels", images) == 2
    assert run("labels", "merge", "--labels", images, "--output", tmp_path / "x") == 2


@pytest.mark.parametrize(
    ("option", "now"),
    [
        ("--student", "annotate --model RUN"),
        ("--image-text", "annotate text --model"),
        ("--masks", "annotate masks --folder"),
        ("--boxes", "annotate boxes --file"),
    ],
)
def test_options_of_the_first_version_name_the_new_ones(option, now, capsys) -> None:
    assert run("annotate", "--data", "x", "--output", "y", option, "z") == 2
    assert now in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused(images, capsys) -> None:
    before = sorted(images.rglob("*"))
    words = ["--data", images, "--output", images, "--model", "resnet10t", "--no-pretrained"]
    assert run("annotate", *words, "--keep-classes", "--image-size", 32) == 2
    assert "is not empty" in capsys.readouterr().err
    assert sorted(images.rglob("*")) == before


@pytest.mark.parametrize("kind", [(), ("words",)])
def test_random_weights_are_warned_of(kind, images, tmp_path, capsys) -> None:
    words = ["--data", images, "--output", tmp_path / "store", "--model", "test_resnet"]
    few = ["--words", 4, "--perplexity", 2] if kind else ["--keep-classes"]
    options = [*few, "--image-size", 64]
    assert run("annotate", *kind, *words, *options) == 2
    assert "give --checkpoint FILE, or teach" in (error := capsys.readouterr().err)
    assert "--no-pretrained" not in error
    assert run("annotate", *kind, *words, *options, "--no-pretrained") == 0
    assert "WARNING: an annotator with random weights" in capsys.readouterr().out


def test_missing_weights_name_the_options_of_the_verb(images, tmp_path) -> None:
    import tokenlabel as tl

    where = {"data": str(images), "output": tmp_path / "out"}
    with pytest.raises(InputError, match=r"\): give --weights FILE, or .*--no-pretrained"):
        tl.teach(**where, model="test_resnet")
    small = {"batch_size": 4, "recipe": "small"}
    with pytest.raises(InputError, match=r"\): give --annotator FOLDER"):
        tl.train(**where, **small, annotator="test_resnet")
    with pytest.raises(InputError, match=r"\): give --weights FILE, or .*--recipe starter"):
        tl.train(**where, **small, model="test_vit", weights="pretrained", supervision="labels")


def test_images_without_classes_are_told_of_two_commands(images, tmp_path, capsys) -> None:
    words = ["--data", images / "dog", "--output", tmp_path / "store", "--model", "test_resnet"]
    assert run("annotate", *words, "--no-pretrained") == 2
    error = capsys.readouterr().err
    options = "--data DIR --output LABELS --model test_resnet"
    assert f"`tokenlabel annotate words {options}`" in error
    assert f"`tokenlabel annotate {options} --keep-classes`" in error


def test_the_library_prints_no_results_and_says_what_was_done(images, tmp_path, capsys) -> None:
    import tokenlabel as tl

    options = {"output_stride": 16, "stem_width": 8, "num_classes": 3}
    said: list[str] = []
    manifest = tl.annotate(
        data=str(images),
        output=tmp_path / "store",
        annotator={
            "model": "resnet10t",
            "pretrained": False,
            "model_kwargs": options,
            "network": {"image_size": 32, "top_k": 2},
        },
        notice=said.append,
    )
    assert (manifest.complete, manifest.labeled, manifest.left_out) == (True, 22, ())
    assert "22 images in 3 classes" in said[0]
    assert capsys.readouterr().out == ""
    with pytest.raises(InputError, match="annotator: grid: "):
        tl.annotate(data=str(images), output=tmp_path, annotator={"model": "x", "grid": [2, 2]})
    with pytest.raises(InputError, match=r"no annotator of kind 'mask' \(did you mean 'masks'"):
        tl.annotate(data=str(images), output=tmp_path, annotator={"kind": "mask"})


def test_help_needs_no_torch() -> None:
    for words in (["annotate"], ["teach"], ["labels", "health"]):
        code = (
            "import sys; from tokenlabel.cli.main import main\n"
            f"try: main({[*words, '--help']})\n"
            "except SystemExit: pass\n"
            "sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("folds", [1, 2])
def test_two_ranks_of_torchrun_write_the_bytes_of_one(folds: int, images, tmp_path) -> None:
    taught = tmp_path / "teacher"
    words = ["--data", images, "--output", taught, "--model", "resnet10t", "--image-size", 32]
    words += ["--no-pretrained", "--epochs", 1, "--batch-size", 8, "--folds", folds]
    assert run("teach", *words) == 0
    for ranks, name in ((1, "one"), (2, "two")):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
        command += ["--master-port", "0", "-m", "tokenlabel", "annotate", "--data", str(images)]
        command += ["--output", str(tmp_path / name), "--model", str(taught), "--device", "cpu"]
        command += ["--batch-size", "4", "--shard-size", "4"]
        subprocess.run(command, check=True, timeout=280)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two
    assert len(one) == 8  # six shards, index, manifest
