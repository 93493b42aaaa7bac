"""One look for every long-running step: a bar with speed and time left."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["console", "progress_bar"]

console = Console(stderr=True, highlight=False)


def progress_bar(unit: str = "img", *, visible: bool = True) -> Progress:
    """A rich progress display; tasks may carry a `note` field (losses, say) shown at the end.

    Set `visible=False` on every rank but the first. The speed column counts `unit`/s.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        _Speed(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not visible,
        expand=False,
    )


class _Speed(TextColumn):
    def __init__(self, unit: str) -> None:
        super().__init__("")
        self.unit = unit

    def render(self, task):  # type: ignore[no-untyped-def]
        from rich.text import Text

        return Text(f"{task.speed:,.0f} {self.unit}/s" if task.speed else "")
