"""Dispatch: a table of verbs, each one function in one module, imported only when it is called.

No torch is imported on the way to `--help`.
"""

from __future__ import annotations

import errno
import importlib
import os
import select
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tokenlabel.annotators.kinds import KINDS
from tokenlabel.errors import InputError, nearest

__all__ = ["main"]

# verb -> (module:function, one line for the overview)
VERBS: dict[str, tuple[str, str]] = {
    "quickstart": (
        "tokenlabel.cli.quickstart:quickstart",
        "Demo: compare three ways of training on 1797 handwritten digits, in minutes.",
    ),
    "train": (
        "tokenlabel.cli.train:train",
        "Train a transformer on a folder of images with token labels.",
    ),
    **{
        "annotate" if kind == "classifier" else f"annotate {kind}": (
            f"tokenlabel.cli.annotate:{kind}",
            line,
        )
        for kind, (_, line) in KINDS.items()
    },
    "teach": (
        "tokenlabel.cli.teach:teach",
        "Fine-tune a classifier on your own folder, to annotate it.",
    ),
    "compare": (
        "tokenlabel.cli.compare:compare",
        "Test whether token labels help on your images: several runs, a report, a verdict.",
    ),
    "eval": (
        "tokenlabel.cli.evaluate:evaluate",
        "Measure the accuracy of a checkpoint on a folder of images.",
    ),
    "pack": (
        "tokenlabel.cli.pack:pack",
        "Write small copies of images to indexed tar files, which load much faster.",
    ),
    "predict": (
        "tokenlabel.cli.predict:predict",
        "Predict the classes of your pictures, as a table or a file.",
    ),
    "show": (
        "tokenlabel.cli.show:show",
        "Draw label maps, token predictions and relevance over images.",
    ),
    "export": (
        "tokenlabel.cli.export:export",
        "Export a trained model to ONNX, to torch.export, or as a timm folder.",
    ),
    "push": (
        "tokenlabel.cli.push:push",
        "Upload a trained model with a model card to the Hugging Face Hub.",
    ),
    "view": (
        "tokenlabel.cli.view:view",
        "Browse images and their labels in a local web page.",
    ),
    "labels info": (
        "tokenlabel.cli.labels:info",
        "Show what a label store contains and how it was made.",
    ),
    "labels verify": (
        "tokenlabel.cli.labels:verify",
        "Check every record of a label store for damage.",
    ),
    "labels health": (
        "tokenlabel.cli.labels:health",
        "Check whether labels fit their images.",
    ),
    "labels diff": ("tokenlabel.cli.labels:diff", "Compare two label stores."),
    "labels merge": ("tokenlabel.cli.labels:merge", "Merge label stores into one."),
    "labels average": (
        "tokenlabel.cli.labels:average",
        "Average the labels of several annotators into one store.",
    ),
    "labels import": (
        "tokenlabel.cli.labels:import_labels",
        "Convert released labels (one .pt file per image) to a label store.",
    ),
    "labels export": (
        "tokenlabel.cli.labels:export_labels",
        "Convert a label store to the released format.",
    ),
    "labels push": ("tokenlabel.cli.labels:push", "Publish a label store with a card."),
    "labels pull": ("tokenlabel.cli.labels:pull", "Download a published label store."),
    "recipes list": (
        "tokenlabel.cli.recipes:listed",
        "List all recipes.",
    ),
    "recipes show": ("tokenlabel.cli.recipes:show", "Print a recipe with all its values."),
    "recipes copy": (
        "tokenlabel.cli.recipes:copy",
        "Copy a recipe to a file, so that you can edit it.",
    ),
    "models": (
        "tokenlabel.cli.models:models",
        "List models with their parameters, FLOPs and throughput.",
    ),
    "convert": (
        "tokenlabel.cli.convert:convert",
        "Convert a released checkpoint to safetensors that timm loads.",
    ),
    "doctor": (
        "tokenlabel.cli.doctor:doctor",
        "Check the environment, and a data set, for problems.",
    ),
    "segment train": (
        "tokenlabel.cli.segment:train",
        "Train a semantic segmentation network.",
    ),
    "segment eval": (
        "tokenlabel.cli.segment:evaluate",
        "Measure the mean IoU of a segmentation model, with a table of classes.",
    ),
    "segment compare": (
        "tokenlabel.cli.segment:compare",
        "Compare two segmentation models, image by image.",
    ),
    "segment predict": (
        "tokenlabel.cli.segment:predict",
        "Segment a folder of pictures; write label images and overlays.",
    ),
    "view-batch": (
        "tokenlabel.cli.view_batch:view_batch",
        "Draw what the student sees in training: images and labels, with augmentation.",
    ),
}

# verb -> option of the first version -> what to write instead
RENAMED: dict[str, dict[str, str]] = {
    "annotate": {
        "--student": "annotate --model RUN (for a file of weights: --model NAME --checkpoint FILE"
        " --head token)",
        "--image-text": "annotate text --model NAME",
        "--masks": "annotate masks --folder FOLDER",
        "--boxes": "annotate boxes --file FILE",
    },
}

# verb -> option that only another verb has -> that verb
IMPLIED: dict[str, dict[str, str]] = {
    "annotate": {"--words": "annotate words", "--vocabulary": "annotate words"},
}

_RESUMED = (
    "quickstart",
    "train",
    "annotate",
    "teach",
    "compare",
    "pack",
    "labels import",
    "labels merge",
    "labels average",
    "labels pull",
    "segment train",
)  # go on after Ctrl-C


def main(arguments: Sequence[str] | None = None) -> None:
    """The `tokenlabel` command. Exits 0 when done, 2 on input that the user can fix, 1 when nobody
    reads its output to the end (`tokenlabel ... | head`)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            _answer(words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _unread():  # it was another pipe
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more
        sys.exit(1)


def _answer(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"tokenlabel {version('tokenlabel')}")
        return
    if words[0] not in VERBS and words[1:] in (["-h"], ["--help"], ["help"]):
        group = {verb: line for verb, (_, line) in VERBS.items() if verb.startswith(f"{words[0]} ")}
        if group:
            print("\n".join([f"usage: tokenlabel {words[0]} VERB [options]", "", *_table(group)]))
            return
    sys.exit(_run(words))


def _unread() -> bool:
    """Whether the standard output is a pipe that nobody reads any more."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)  # asks for errors alone
    return bool(output.poll(0))


def _run(words: list[str]) -> int:
    try:
        verb, rest = _find_verb(words)
        result = _call(verb, rest)
    except InputError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        again = " ".join(words).startswith(_RESUMED)
        note = ": the same command goes on where it stopped" if again else ""
        return _complain(f"interrupted{note}", 130)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            place = f" while writing {error.filename}" if error.filename else ""
            return _complain(f"the disk is full{place}: free some space and run it again")
        if error.filename is None:
            raise
        return _complain(f"{error.filename}: {error.strerror}")
    return result if isinstance(result, int) else 0


def _call(verb: str, rest: list[str]) -> Any:
    from tokenlabel.cli.options import call

    given = {word.partition("=")[0] for word in rest}
    module, _, name = VERBS[verb][0].partition(":")
    for option, instead in RENAMED.get(verb, {}).items():
        if option in given:
            raise InputError(f"{verb} {option} is now: tokenlabel {instead}")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return call(function, prog=f"tokenlabel {verb}", words=rest)


def _find_verb(words: list[str]) -> tuple[str, list[str]]:
    """The verb is one word, or two (`labels info`); an option may be that of another verb alone."""
    for length in (2, 1):
        verb = " ".join(words[:length])
        if len(words) >= length and verb in VERBS:
            rest = words[length:]
            given = {word.partition("=")[0] for word in rest}
            implied = [v for option, v in IMPLIED.get(verb, {}).items() if option in given]
            return implied[0] if implied else verb, rest
    group = [verb for verb in VERBS if verb.startswith(words[0] + " ")]
    if group:
        fault = f"{words[1]!r} is not one of its verbs" if len(words) > 1 else "a verb is missing"
        choices = ", ".join(verb.split()[1] for verb in group)
        raise InputError(f"tokenlabel {words[0]}: {fault}; it has: {choices}")
    raise InputError(
        f"no such verb: {words[0]!r}{nearest(words[0], VERBS)}; `tokenlabel --help` lists them"
    )


def _overview() -> str:
    return "\n".join(
        [
            "tokenlabel: better vision transformers from the images you already have.",
            "",
            "usage: tokenlabel VERB [options]",
            "",
            *_table({verb: line for verb, (_, line) in VERBS.items()}),
        ]
    )


def _table(verbs: dict[str, str]) -> list[str]:
    """The lines of these verbs, and how to learn more of one."""
    width = max(map(len, verbs)) + 2
    lines = [f"  {verb:<{width}}{line}" for verb, line in verbs.items()]
    return [*lines, "", "`tokenlabel VERB --help` explains each one."]


def _complain(message: str, code: int = 2) -> int:
    print(f"tokenlabel: {message}", file=sys.stderr)
    return code
