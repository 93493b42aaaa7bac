"""The speed that a progress bar shows is that of the work done here."""

from __future__ import annotations

import re

from tokenlabel.progress import progress_bar


def test_speed_is_without_what_was_there() -> None:
    with progress_bar(visible=False) as bar:
        task = bar.add_task("annotate", total=1000, note="")
        bar.update(task, advance=900, found=900)
        bar.update(task, advance=100)
    (done,) = bar.tasks
    done.finished_time = 4.0
    shown = " ".join(str(c.render(done)) for c in bar.columns if hasattr(c, "render"))
    assert re.search(r"(\S+) img/s", shown)[1] == "25"
