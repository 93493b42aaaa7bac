"""`tokenlabel annotate`, one verb for each kind of annotator: label every region of every image."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from tokenlabel.annotators.kinds import spec_type
from tokenlabel.choices import Codec, Orientation
from tokenlabel.cli.said import SOME_LEFT_OUT, say, say_next

if TYPE_CHECKING:
    from tokenlabel.labels.manifest import Manifest

_SHOWN = 20
_FLAT = (tyro.conf.OmitArgPrefixes, tyro.conf.arg(name=""))

_HELP = """{title}

    Each image is divided into cells (7 x 7 for a ResNet at 224 pixels, more at larger sizes). The store
    keeps the best classes of each cell with their probabilities. Training reads the store and no longer
    needs the annotator.

    To resume an interrupted run, run the same command again. Several processes (torchrun, or machines
    that share the output folder) share the work. Images that cannot be read are listed and left out;
    the exit code is then 3.

    Args:
        data: images: a folder with one subfolder per class, a tar file, WebDataset shards, or
            hfds/owner/name.
        output: folder for the label store.
    """


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What is labeled and how the labels are kept, whatever the annotator."""

    split: str | None = None
    """Split to use (default: the training split)."""
    orientation: Orientation | None = None
    """Whether to apply the EXIF orientation of the images (default: ignore, or as a segmenter's run)."""
    channels: tuple[int, ...] = ()
    """Channels to use, numbered from 0 (default: all, or those of a segmenter's run)."""
    codec: Codec = "compact"
    """compact (about 2 kB per image), exact (raw logits as float16), or raw (like exact, but
    uncompressed)."""
    batch_size: int | None = None
    """Images per batch (default: what fits in memory)."""
    shard_size: int | None = None
    """Images per file of the store."""


_DEFAULT = _Run()


def __getattr__(kind: str) -> Callable[..., int]:
    """The verb of one kind, made of its spec; no other kind is imported."""
    if kind.startswith("__"):
        raise AttributeError(kind)
    return _verb(kind)


def _verb(kind: str) -> Callable[..., int]:
    """A function whose options are those of every run and those of the kind's spec."""
    spec: Any = spec_type(kind)

    def verb(*, data: str, output: Path, annotator: Any, run: _Run = _DEFAULT) -> int:
        from tokenlabel.api.annotate import annotate

        manifest = annotate(
            data=data,
            output=output,
            annotator=annotator,
            split=run.split,
            orientation=run.orientation,
            channels=run.channels,
            codec=run.codec,
            batch_size=run.batch_size,
            shard_size=run.shard_size,
            notice=say,
        )
        return _report(output, manifest, (("--data", data), ("--split", run.split)))

    verb.__annotations__["annotator"] = Annotated[spec, *_FLAT]
    verb.__annotations__["run"] = Annotated[_Run, *_FLAT]
    title = textwrap.indent(inspect.getdoc(spec) or "", "    ").lstrip()
    verb.__doc__ = _HELP.format(title=title)
    return verb


def _report(output: Path, manifest: Manifest, images: Sequence[tuple[str, str | None]]) -> int:
    """Say what was done, and the next command, with the options `images`; the exit code."""
    if not manifest.complete:
        say(
            f"{output}: this process is done, others are still writing; should the store stay"
            " unfinished, run the same command again"
        )
        return 0
    left_out = manifest.left_out
    say(f"{output}: {manifest.labeled:,} images labeled, {len(left_out):,} left out")
    for left in left_out[:_SHOWN]:
        say(f"  left out {left.key}: {left.reason}")
    if (more := len(left_out) - _SHOWN) > 0:
        say(f"  and {more} more: see {output / 'manifest.json'}")
    if left_out:
        say(
            "repair the images that were left out and run the same command again, or train without"
            " them"
        )
    from tokenlabel.data.rules import DecodeRules

    rules = DecodeRules.of_dict(manifest.dataset.get("decode", {}))
    same: list[Any] = []  # the student may see all channels where the annotator saw three of them
    if rules.channels != 3:
        same = [("--in-chans", rules.channels), rules.chosen and ("--channels", *rules.chosen)]
    say_next("train", *images, ("--labels", output), *same)
    return SOME_LEFT_OUT if left_out else 0
