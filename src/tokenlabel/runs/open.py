"""`open_run`: the only reader of a run's folder.

Weights are handed out only when they match their checksum. Where the best checkpoint is damaged, the
newest whole one takes its place, and `Run.damaged` says so.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, overload

from tokenlabel.errors import InputError
from tokenlabel.progress import console
from tokenlabel.runs.checkpoints import PROGRESS, CheckpointFolder, fault_of, is_checkpoint
from tokenlabel.runs.recipe import Recipe
from tokenlabel.runs.recipe_file import R, read_recipe
from tokenlabel.text import read_json, read_yaml

__all__ = ["TAUGHT_RUN", "Run", "WhichWeights", "holds_run", "open_run", "saved_weights"]

TAUGHT_RUN = "run"  # in a taught model's folder: the folder of its run

WhichWeights = Literal["auto", "ema", "model"]
"""The moving average of the weights, the weights themselves, or "auto": the average where it is kept."""

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True)
class Run(Generic[R_co]):
    """A run's folder. What is read is read once; `open_run` makes it."""

    folder: Path
    recipe: R_co
    chosen: Path | None = None
    """The one checkpoint that was asked for; None for the best, or else the newest."""

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.facts["classes"])

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the run wrote down about its images, labels and machine. Raises InputError."""
        facts: dict[str, Any] = read_json(self.folder / "environment.json", kind=dict)
        if not isinstance(facts.get("classes"), list):
            raise InputError(f"{self.folder / 'environment.json'} names no classes: it is damaged")
        return facts

    @property
    def results(self) -> dict[str, Any] | None:
        """The final numbers, once the run is complete."""
        file = self.folder / "results.json"
        results: dict[str, Any] | None = read_json(file, kind=dict) if file.is_file() else None
        return results

    @cached_property
    def recorded(self) -> dict[str, Any]:
        """What was kept beside the checkpoint's weights (see `BaseRecipe.recorded`); {} in old ones."""
        file = self.checkpoint / PROGRESS
        found = read_json(file, kind=dict).get("recorded", {}) if file.is_file() else {}
        return found if isinstance(found, dict) else {}

    def evaluations(self) -> list[dict[str, Any]]:
        """The results of every evaluation kept in the folder, in the order of their folders' names."""
        files = sorted((self.folder / "evaluation").rglob("results.json"))
        return [read_json(file, kind=dict) for file in files]

    @cached_property
    def damaged(self) -> tuple[str, ...]:
        """One line for each checkpoint that was passed over because it is damaged."""
        return tuple(f"{path.name}: {fault}" for path, fault in self._found[1])

    @property
    def checkpoint(self) -> Path:
        """The folder of the checkpoint whose weights are used. Raises InputError if none is whole."""
        return self._found[0]

    def weights(self, which: WhichWeights = "auto") -> Path:
        """The verified file of weights. Raises InputError if there is none, or none of that kind."""
        names = ("ema", "model") if which == "auto" else (which,)
        files = [self.checkpoint / f"{name}.safetensors" for name in names]
        found = next((file for file in files if file.exists()), None)
        if found is None:
            raise InputError(f"{self.checkpoint} holds no {files[0].name}: use other weights")
        return found

    @cached_property
    def _found(self) -> tuple[Path, list[tuple[Path, str]]]:
        if self.chosen is not None:
            fault = fault_of(self.chosen, weights_only=True)
            if fault is not None:
                raise InputError(f"{self.chosen} is damaged ({fault}): use another checkpoint")
            return self.chosen, []
        folder = CheckpointFolder(self.folder / "checkpoints", keep=1)
        best, newest_first = folder.best(), folder.steps()[::-1]
        if best is not None:
            newest_first = [best, *(step for step in newest_first if step != best)]
        if not newest_first:
            raise InputError(f"{self.folder} has no checkpoint yet: let the run go on")
        damaged: list[tuple[Path, str]] = []
        for step in newest_first:
            fault = fault_of(step, weights_only=True)
            if fault is None:
                if damaged:
                    console.print(
                        f"{damaged[0][0]} is damaged ({damaged[0][1]}): using {step.name}",
                        style="yellow",
                        soft_wrap=True,
                    )
                return step, damaged
            damaged.append((step, fault))
        raise InputError(
            f"every checkpoint of {self.folder} is damaged ({damaged[0][0].name}: {damaged[0][1]}):"
            " train it again"
        )


@overload
def open_run(path: str | Path) -> Run[Recipe]: ...
@overload
def open_run(path: str | Path, kind: type[R]) -> Run[R]: ...
def open_run(path: str | Path, kind: type[Any] = Recipe) -> Run[Any]:
    """The run of a folder, or of one `step-…` folder of its checkpoints, whose recipe is of a `kind`.

    Raises InputError where the path holds no such run. Weights are verified when they are asked for.
    """
    path = Path(path)
    chosen = path if is_checkpoint(path) else None
    folder = path if chosen is None else path.resolve().parent.parent
    if not holds_run(folder):
        inside = folder / TAUGHT_RUN
        fix = "it holds no recipe.yaml"
        if holds_run(inside):
            fix = f"{inside} is: if `tokenlabel teach` was to write {path}, run it again, else give that"
        raise InputError(f"{path} is not a run: {fix}")
    file = folder / "recipe.yaml"
    try:
        return Run(folder, read_recipe(file, kind), chosen)
    except InputError:
        content = read_yaml(file, f"recipe {file}", kind=dict)
        others = content.keys() - {field.name for field in fields(kind)}
        if not others:
            raise
        raise InputError(
            f"{folder} holds a run of another kind, whose recipe has the section {min(others)!r}: runs"
            " of `tokenlabel segment train` go with `segment eval`, `segment predict` and `annotate"
            " segmenter`, those of `tokenlabel train` with `eval`, `predict` and `annotate`"
        ) from None


def holds_run(path: str | Path) -> bool:
    """Whether a folder is that of a run."""
    return (Path(path) / "recipe.yaml").is_file()


def saved_weights(place: str | Path) -> Path:
    """The file of weights that a path stands for; nothing says that a plain file exists.

    A file stands for itself, a run or one of its checkpoints for `Run.weights()`, any other folder for
    its `model.safetensors`.
    """
    path = Path(place)
    if not path.is_dir():
        return path
    step = is_checkpoint(path)
    if not step and not holds_run(path):
        return path / "model.safetensors"
    # weights are found without the recipe, so that runs of every kind may be started from
    return Run(path, None, path if step else None).weights()
