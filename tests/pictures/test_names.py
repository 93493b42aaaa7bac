"""Names of classes and runs are text in pictures and pages, whatever they hold."""

from __future__ import annotations

from pathlib import Path

import torch

from tokenlabel.pictures.confusion import draw_confusion
from tokenlabel.pictures.page import page


def test_matplotlib_reads_no_math_in_class_names(tmp_path: Path) -> None:
    draw_confusion(tmp_path / "a.png", torch.eye(2), ["$\\frac{$", "\u202e_hidden`"])
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_a_title_is_text_and_moves_no_part_of_the_page() -> None:
    text = page("TITLE BODY <script>", "<p>part</p>")
    assert text.count("<p>part</p>") == 1
    assert "<title>TITLE BODY &lt;script&gt;</title>" in text
    assert text.index("<h1>") < text.index("<p>part</p>") < text.index("</body>")
