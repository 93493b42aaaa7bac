"""One look for every long-running step: a bar with speed and time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tokenlabel.torchrun import rank_and_world

__all__ = ["console", "first_process", "progress_bar", "results", "silent"]

# names of classes and files are printed as they are, never read as markup
console = Console(stderr=True, highlight=False, markup=False, emoji=False)
results = Console(highlight=False, markup=False, emoji=False)


def first_process() -> bool:
    """Whether this process is the one of a torchrun that prints."""
    return rank_and_world()[0] == 0


@contextmanager
def silent() -> Iterator[None]:
    """Print nothing to `console` here: what is said was said before, or will be."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


def progress_bar(unit: str = "img", *, visible: bool = True) -> Progress:
    """A rich progress display; tasks may carry a `note` field (losses, say) shown at the end.

    Set `visible=False` on every rank but the first. The speed column counts `unit`/s, without those that
    a task's field `found` says were there already or are made by others.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        _Speed(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        _Note(),
        console=console,
        disable=not visible,
    )


class _Speed(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        # rich's own speed counts the moments between calls, which come by the batch
        seconds = task.finished_time or task.elapsed
        made = task.completed - task.fields.get("found", 0)
        return Text(f"{made / seconds:,.0f} {self.unit}/s" if seconds else "")


class _Note(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("note", "")))
