"""Do visual words teach as well as features, and what are they worth without labels?

    python proof/words.py --data TINYIMAGENET --part mechanism
    python proof/words.py --data TINYIMAGENET --part few --other CIFAR10 --camvid CAMVID
    ... on a GPU: --cache device --workers 6 --set schedule.batch_size=256 engine.device_batch=256

TINYIMAGENET is a folder with train.tar and val.tar of class folders. `mechanism`: one taught CNN as
classes, as words of its features before the head, as both, and as features by regression at three
depths (`feature_regression.py`). `few`: a CNN taught on a tenth of the labels; its words pre-train on
all images without classes, and the tenth fine-tunes, for as many updates as all labels get; against
the tenth alone, against its token labels, and against all labels. The same with words of a network that
was pretrained elsewhere: EfficientNet-Lite0, whose weights `--pretrained` names. Students are judged by
their class token. Then students of words, of all labels and of random weights are fine-tuned on
CIFAR-10, where --other names it, and on CamVid's scenes in ADE20K's layout (see `proof/camvid.py`),
where --camvid names them.

`--workers` runs are made at a time; cores that are left over load images, unless they stay on the GPU.
Every step goes on where it was stopped. Finished runs leave a record in `proof/words/`, with the options
that decide its result: records of other options are refused. The tables of both parts go to
`docs/words.md`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import feature_regression
from at_once import loaders, said
from networks import FINE_TUNING, PRETRAINED, PRETRAINED_SIDE, SMALL, TEACHING
from parts import unpacked
from words_runs import RegressionRun, Run, ScenesRun
from words_tables import BYTES, NO_LABELS, OTHER, RESULTS, SCENES, Arm, write_tables

import tokenlabel as tl
from tokenlabel.api.train import train_recipe
from tokenlabel.compare.plan import make_records, slug
from tokenlabel.compare.record import read_record
from tokenlabel.data.open import open_images
from tokenlabel.files import write_atomically
from tokenlabel.labels import LabelStore
from tokenlabel.models import build_model

STUDENTS = ("lvvit", "vit")
SIDE = 64  # pixels of the images
TRUE_CLASS = "supervision.class_target=ground-truth"
MEAN_TOKEN = "model.kwargs.heads=tokens"  # the class token of a student of words learned nothing
FEW = 10  # one label of so many is kept
# the options that decide a result, which every record keeps
DECIDING = (
    "images", "epochs", "teacher_epochs", "taught", "words", "annotated", "patch",
    "feature_weight", "set", "set_camvid",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--other", type=Path, help="folder with train.tar(.gz) and val.tar(.gz)")
    parser.add_argument("--camvid", type=Path, help="folder with images/ and annotations/")
    parser.add_argument("--pretrained", type=Path, help="weights of EfficientNet-Lite0")
    parser.add_argument("--part", choices=("mechanism", "few"), default="mechanism")
    parser.add_argument("--output", type=Path, default=Path("runs/words"))
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--images", type=int, default=500, help="a class, of those to train on")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--teacher-epochs", type=int, default=8)
    parser.add_argument(
        "--taught", type=int, default=96, help="pixels that the CNN is taught with (FixRes: fewer)"
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--students", nargs="*", default=STUDENTS)
    parser.add_argument("--patch", type=int, default=8, help="pixels of a student's patch")
    parser.add_argument("--words", type=int, default=1024)
    parser.add_argument("--annotated", type=int, default=128, help="pixels the CNN is shown")
    parser.add_argument("--feature-weight", type=float, default=2.5, help="2.5 in the paper")
    parser.add_argument("--cache", choices=("ram", "disk", "device"), default="ram")
    parser.add_argument("--match", default="", help="make only runs whose name this finds")
    parser.add_argument("--set", nargs="*", default=[], help="further values of the students")
    parser.add_argument("--set-camvid", nargs="*", default=[], help="the same, on CamVid")
    options = parser.parse_args()
    deciding = {name: getattr(options, name) for name in DECIDING}
    require_same_options(deciding)
    bench = Bench(options, deciding)
    (bench.mechanism if options.part == "mechanism" else bench.few)()
    write_tables()


class Bench:
    def __init__(self, options: argparse.Namespace, deciding: Mapping[str, Any]) -> None:
        self.options, self.output, self.deciding = options, options.output, deciding
        self.train, self.val = (
            unpacked(options.data, part, self.output / "images" / part) for part in ("train", "val")
        )
        self.all = listed(self.train, self.output / "all.csv", options.images, classes=True)
        self.loaders = loaders(options.workers)
        self.stores: dict[str, Callable[[], object]] = {}  # how each store of labels is made

    def mechanism(self) -> None:
        teacher = self.teach("cnn", self.all, self.options.teacher_epochs)
        classes = self.store(Arm.CLASSES, self.all, "classifier", lambda: self.shown(teacher))
        words = self.store(Arm.WORDS, self.all, "words", lambda: self.shown(teacher))
        self.make(
            run
            for place in self.places()
            for run in (
                self.run(Arm.LABELS, *place, supervision="labels"),
                self.run(Arm.CLASSES, *place, labels=[classes]),
                self.run(Arm.WORDS, *place, labels=[words]),
                self.run(Arm.BOTH, *place, labels=[classes, words]),
                self.run(Arm.CLASSES_BESIDE_TRUTH, *place, TRUE_CLASS, labels=[classes]),
                self.run(Arm.BOTH_BESIDE_TRUTH, *place, TRUE_CLASS, labels=[classes, words]),
                self.regression(teacher, *place),
            )
        )
        self.measure(teacher)

    def few(self) -> None:
        options = self.options
        few = listed(self.train, self.output / "few.csv", options.images // FEW, classes=True)
        plain = listed(self.train, self.output / "plain.csv", options.images, classes=False)

        def taught() -> dict[str, Any]:
            return self.shown(self.teach("cnn-few", few, FEW * options.teacher_epochs))

        classes = self.store(Arm.TENTH_CLASSES, few, "classifier", taught)
        words = self.store(Arm.BEFORE, plain, "words", taught)
        stores = {(Arm.BEFORE, Arm.AFTER, Arm.FROZEN, Arm.PROBE): words}
        if options.pretrained is not None:
            arms = (
                Arm.BEFORE_PRETRAINED, Arm.AFTER_PRETRAINED,
                Arm.FROZEN_PRETRAINED, Arm.PROBE_PRETRAINED,
            )  # fmt: skip
            network = {
                "model": PRETRAINED,
                "checkpoint": str(options.pretrained),
                "network": {"image_size": PRETRAINED_SIDE},
            }
            stores[arms] = self.store(arms[0], plain, "words", lambda: network)
        tenth = {"data": str(few), "epochs": self.as_many_updates(few)}
        first, second = [], []
        for place in self.places():
            labels = self.run(Arm.LABELS, *place, supervision="labels")
            starts: dict[str, Run | None] = {Arm.LABELS: labels, "nothing": None}
            first += [
                labels,
                self.run(Arm.TENTH, *place, supervision="labels", **tenth),
                self.run(Arm.TENTH_CLASSES, *place, labels=[classes], **tenth),
            ]
            for (before, after, frozen, probe), store in stores.items():
                start = self.run(before, *place, data=str(plain), labels=[store])
                starts[before.removesuffix(NO_LABELS)] = start
                chosen = {"supervision": "labels", "weights": str(start.folder)} | tenth
                first.append(start)
                second += [
                    self.run(after, *place, lr=FINE_TUNING, **chosen),
                    self.run(frozen, *place, freeze="backbone", **chosen),
                    self.run(probe, *place, MEAN_TOKEN, freeze="backbone", **chosen),
                ]
            second += [*self.carried(starts, place), *self.on_scenes(starts, place)]
        self.make(first)
        self.make(second)

    def carried(self, starts: Mapping[str, Run | None], place: tuple[str, int]) -> Iterator[Run]:
        """Students fine-tuned on the other data set."""
        if self.options.other is None:
            return
        data, val = (
            str(unpacked(self.options.other, part, self.output / "other" / "images" / part))
            for part in ("train", "val")
        )
        for name, start in starts.items():
            choices = {"data": data, "val": val, "supervision": "labels"}
            if start is not None:
                choices |= {"weights": str(start.folder), "lr": FINE_TUNING}
            yield self.run(f"{OTHER}{name}", *place, **choices)

    def on_scenes(self, starts: Mapping[str, Run | None], place: tuple[str, int]) -> Iterator[Run]:
        """Students fine-tuned on CamVid; the weights of a run name the network of random ones too."""
        if self.options.camvid is None:
            return
        settings = [
            "engine.device=auto", "data.val_split=null", "trackers=[]", *self.options.set_camvid
        ]  # fmt: skip
        some = next(filter(None, starts.values()))
        for name, start in starts.items():
            choices = {
                "data": self.options.camvid,
                "weights": str((start or some).folder),
                "workers": self.loaders,
                "settings": settings if start else [*settings, "model.weights=null"],
            }
            yield ScenesRun(f"{SCENES}{name}", *place, self.output, choices, self.deciding)

    # -- steps ---------------------------------------------------------------------------------------

    def teach(self, name: str, data: Path, epochs: int) -> Path:
        folder = self.output / name
        tl.teach(
            data=str(data), output=folder, model=SMALL.name, pretrained=False,
            model_kwargs=SMALL.arguments, image_size=self.options.taught, epochs=epochs,
            batch_size=128, **TEACHING, holdout=0.0, cache=self.options.cache, workers=self.loaders,
        )  # fmt: skip
        return folder

    def shown(self, teacher: Path) -> dict[str, Any]:
        """A taught CNN and the pixels that it is shown, as an annotator's spec says it."""
        return {"model": str(teacher), "network": {"image_size": self.options.annotated}}

    def store(
        self, arm: str, data: Path, kind: str, network: Callable[[], Mapping[str, Any]]
    ) -> str:
        """The labels from which an arm learns; `make` makes them where a run needs them."""
        path = str(self.output / slug(arm))
        sized = {"words": self.options.words} if kind == "words" else {}
        self.stores[path] = lambda: tl.annotate(
            data=str(data), output=path, annotator={"kind": kind, **network(), **sized}
        )
        return path

    def places(self) -> Iterator[tuple[str, int]]:
        for seed in range(self.options.seeds):
            for student in self.options.students:
                yield student, seed

    def run(self, arm: str, student: str, seed: int, *settings: str, **choices: Any) -> Run:
        epochs = choices.get("epochs", self.options.epochs)
        chosen = {
            "data": str(self.all), "val": str(self.val), "recipe": f"cifar10_{student}",
            "image_size": SIDE, "epochs": epochs, "cache": self.options.cache,
            "workers": self.loaders,
            "settings": [
                f"model.kwargs.patch_size={self.options.patch}", f"validate_every={epochs}",
                *settings, *self.options.set,
            ],
        } | choices  # fmt: skip
        return Run(arm, student, seed, self.output, chosen, self.deciding)

    def regression(self, teacher: Path, student: str, seed: int) -> Run:
        plain = self.run(Arm.FEATURES, student, seed)
        shown, weight = self.options.annotated, self.options.feature_weight
        return RegressionRun(**vars(plain), teacher=teacher, shown=shown, weight=weight)

    def as_many_updates(self, few: Path) -> int:
        """Epochs over few images with as many updates as the epochs over all."""
        at_once = train_recipe(
            data=str(few), recipe=f"cifar10_{STUDENTS[0]}", settings=self.options.set
        ).schedule.batch_size
        all_, some = (len(open_images(str(data))) // at_once for data in (self.all, few))
        if not some:
            sys.exit(f"{few} has fewer images than a batch of {at_once}: --set a smaller one")
        return round(self.options.epochs * all_ / some)

    def measure(self, teacher: Path) -> None:
        """Write down the bytes that an image's supervision takes, on the grids of the same CNN."""
        found = {}
        for arm in (Arm.CLASSES, Arm.WORDS):
            self.stores[str(self.output / slug(arm))]()
            store = LabelStore(self.output / slug(arm))
            found[arm] = sum(shard.bytes for shard in store.manifest.shards) / len(store)
        network = build_model(str(teacher), pretrained=True)
        stages = feature_regression.stages(network, self.options.annotated)
        size = 2 * sum(stage.numel() for stage in stages)  # in half precision
        bytes_ = found | {Arm.BOTH: sum(found.values()), Arm.FEATURES: size}
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_atomically(BYTES, json.dumps(bytes_, indent=2) + "\n")

    def make(self, runs: Iterable[Run]) -> None:
        chosen = [run for run in runs if re.search(self.options.match, run.name)]
        for store in {store for run in chosen for store in run.labels}:
            self.stores[store]()
        make_records([run.job for run in chosen], self.options.workers, said)


def require_same_options(options: Mapping[str, Any]) -> None:
    """Stop where a record is there that was made with other options."""
    for file in sorted(RESULTS.glob("*-*.json")):
        made = read_record(file).details.get("options", {})
        other = [name for name, value in options.items() if made.get(name) != value]
        if other:
            given = ", ".join(f"{name}={made.get(name)}" for name in other)
            sys.exit(f"{file} was made with {given}: give the same options, or remove {RESULTS}")


# -- images ----------------------------------------------------------------------------------------


def listed(images: Path, file: Path, count: int, *, classes: bool) -> Path:
    """A list of `count` images a class, those evenly spread over its names."""
    rows = [["path", "label"] if classes else ["path"]]
    for folder in sorted(p for p in images.iterdir() if p.is_dir()):
        names = sorted(p.name for p in folder.rglob("*") if p.is_file())
        for name in names[:: max(len(names) // count, 1)][:count]:
            path = f"{images.relative_to(file.parent)}/{folder.name}/{name}"
            rows.append([path, folder.name] if classes else [path])
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return file


if __name__ == "__main__":
    main()
