"""Do visual words teach as well as features, and what are they worth without labels?

    python benchmarks/bench_words.py --data TINYIMAGENET --part mechanism --output runs/words
    python benchmarks/bench_words.py --data TINYIMAGENET --part few --output runs/words

TINYIMAGENET is a folder with train.tar and val.tar of class folders. `mechanism`: one taught CNN as
classes, as words of its features before the head, as both, and as features by regression at three
depths (`feature_regression.py`). `few`: a CNN taught on a tenth of the labels; its words pre-train on
all images without classes, and the tenth fine-tunes; against the tenth alone, against its token
labels, and against all labels. Then both are fine-tuned on CIFAR-10, where --other names it.
Every step goes on where it was stopped; a table of what is done is printed after each.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import feature_regression

import tokenlabel as tl
from tokenlabel.labels import LabelStore

STUDENTS = ("lvvit", "vit")
SIDE = 64  # pixels of the images; students see 8 x 8 tokens of them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--other", type=Path, help="folder with train.tar(.gz) and val.tar(.gz)")
    parser.add_argument("--part", choices=("mechanism", "few"), default="mechanism")
    parser.add_argument("--output", type=Path, default=Path("runs/words"))
    parser.add_argument("--images", type=int, default=500, help="a class, of those to train on")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--teacher-epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--students", nargs="*", default=STUDENTS)
    parser.add_argument("--words", type=int, default=1024)
    parser.add_argument("--annotated", type=int, default=128, help="pixels the CNN is shown")
    parser.add_argument("--feature-weight", type=float, default=2.5, help="2.5 in the paper")
    parser.add_argument("--set", nargs="*", default=[], help="further values of the students")
    options = parser.parse_args()
    bench = Bench(options)
    (bench.mechanism if options.part == "mechanism" else bench.few)()


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.output = options, options.output
        self.train, self.val = (
            unpacked(options.data, part, self.output) for part in ("train", "val")
        )
        self.all = listed(self.train, self.output / "all.csv", options.images, classes=True)
        self.scores: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.stores: dict[str, Path] = {}

    def mechanism(self) -> None:
        teacher = self.teach("cnn", self.all)
        classes = self.annotate("classes", self.all, teacher, kind="classifier")
        words = self.annotate("words", self.all, teacher, kind="words", words=self.options.words)
        for seed in range(self.options.seeds):
            for student in self.options.students:
                common = {"data": str(self.all), "student": student, "seed": seed}
                self.run("labels", supervision="labels", **common)
                self.run("classes", labels=[classes], **common)
                self.run("words", labels=[words], **common)
                self.run("classes and words", labels=[classes, words], **common)
                self.run("features", teacher=teacher, **common)
                self.table()

    def few(self) -> None:
        few = listed(self.train, self.output / "few.csv", self.options.images // 10, classes=True)
        plain = listed(self.train, self.output / "plain.csv", self.options.images, classes=False)
        teacher = self.teach("cnn-few", few)
        words = self.annotate("words-few", plain, teacher, kind="words", words=self.options.words)
        classes = self.annotate("classes-few", few, teacher, kind="classifier")
        for seed in range(self.options.seeds):
            for student in self.options.students:
                common = {"student": student, "seed": seed}
                self.run("all labels", data=str(self.all), supervision="labels", **common)
                # as many updates on a tenth of the images as on all of them
                tenth = {"data": str(few), "epochs": 10 * self.options.epochs} | common
                self.run("tenth", supervision="labels", **tenth)
                self.run("tenth, token labels", labels=[classes], **tenth)
                before = self.run("pre-trained on words", data=str(plain), labels=[words], **common)
                start = {"supervision": "labels", "weights": str(before)} | tenth
                self.run("tenth after words", **start)
                self.run("tenth after words, frozen", freeze="backbone", **start)
                self.carry(before, self.folder("all labels", student, seed), common)
                self.table()

    def carry(self, words: Path, labels: Path, common: dict[str, Any]) -> None:
        """Both fine-tuned on the other data set."""
        other = self.options.other
        if other is None:
            return
        data = unpacked(other, "train", self.output / "other")
        val = str(unpacked(other, "val", self.output / "other"))
        for name, weights in (("words", words), ("all labels", labels), ("nothing", None)):
            self.run(
                f"other data after {name}", data=str(data), val=val, supervision="labels",
                weights=None if weights is None else str(weights), **common,
            )  # fmt: skip

    # -- steps ---------------------------------------------------------------------------------------

    def teach(self, name: str, data: Path) -> Path:
        folder = self.output / name
        if not (folder / "config.json").exists():
            tl.teach(
                data=str(data), output=folder, model="resnet10t", pretrained=False,
                model_kwargs={"output_stride": 8, "channels": [64, 128, 256, 256]},
                image_size=SIDE, epochs=self.options.teacher_epochs, batch_size=128, opt="muon",
                lr=6e-3, holdout=0.0, dtype="auto",
            )  # fmt: skip
        return folder

    def annotate(self, name: str, data: Path, teacher: Path, **spec: Any) -> str:
        store = self.output / name
        spec |= {"model": str(teacher), "network": {"image_size": self.options.annotated}}
        tl.annotate(data=str(data), output=store, annotator=spec)
        return str(store)

    def folder(self, arm: str, student: str, seed: int) -> Path:
        return self.output / "runs" / f"{student}-{arm.replace(' ', '-').replace(',', '')}-{seed}"

    def run(self, arm: str, *, student: str, seed: int, **choices: Any) -> Path:
        """One run, or what it left; its folder."""
        folder = self.folder(arm, student, seed)
        teacher, weight = choices.pop("teacher", None), self.options.feature_weight
        arguments: dict[str, Any] = {
            "output": folder, "recipe": f"cifar10_{student}", "image_size": SIDE, "seed": seed,
            "val": str(self.val), "epochs": self.options.epochs, "mix": "none", "workers": 0,
            "settings": [
                "model.kwargs.patch_size=8", f"validate_every={choices.get('epochs') or 10**6}",
                *self.options.set,
            ], **choices,
        }  # fmt: skip
        if teacher is None:
            done = tl.train(**arguments)
        else:
            done = feature_regression.train(
                teacher, weight, **{k: v for k, v in arguments.items() if k != "mix"}
            )
        measures = done.results["measures"]
        name = next(name for name in ("val/top1", "val/knn") if name in measures)
        self.scores[student, f"{arm} (nearest neighbors)" if "knn" in name else arm].append(
            100 * measures[name]
        )
        return folder

    def table(self) -> None:
        print("\nvalidation top-1 at the end, mean and deviation over seeds")
        for (student, arm), found in self.scores.items():
            spread = statistics.stdev(found) if len(found) > 1 else 0.0
            print(
                f"  {student:<8}{arm:<44}{statistics.mean(found):6.2f} ± {spread:.2f}  ({len(found)})"
            )
        for name in sorted(p.parent.name for p in self.output.glob("*/manifest.json")):
            store = LabelStore(self.output / name)
            size = sum(shard.bytes for shard in store.manifest.shards) / max(len(store), 1)
            rows, columns = store[store.keys()[0]].grid
            print(f"  {name:<20}{size:8.0f} bytes an image, {rows} x {columns} cells")
        print("  features of the last stage as float16: cells x 256 channels x 2 bytes", flush=True)


def unpacked(data: Path, part: str, output: Path) -> Path:
    """The class folders of a part."""
    target = output / "images" / part
    if target.exists():
        return target
    found = next(iter(sorted(data.glob(f"{part}*"))))
    target.parent.mkdir(parents=True, exist_ok=True)
    if found.is_dir():
        target.symlink_to(found.resolve())
        return target
    draft = target.with_name(f".{part}")
    with tarfile.open(found) as archive:
        archive.extractall(draft, filter="data")
    inner = draft / part
    (inner if inner.is_dir() else draft).rename(target)
    return target


def listed(images: Path, file: Path, count: int, *, classes: bool) -> Path:
    """A list of `count` images a class, those evenly spread over its names."""
    with file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "label"] if classes else ["path"])
        for folder in sorted(p for p in images.iterdir() if p.is_dir()):
            names = sorted(p.name for p in folder.rglob("*") if p.is_file())
            for name in names[:: max(len(names) // count, 1)][:count]:
                path = f"{images.relative_to(file.parent)}/{folder.name}/{name}"
                rows.writerow([path, folder.name] if classes else [path])
    return file


if __name__ == "__main__":
    main()
