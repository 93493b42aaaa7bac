"""Metadata of the package that depends on where the project is hosted.

With `PROJECT_URL=https://host/owner/name` in the environment, the package index shows the project's
addresses, and README's links, which are relative in the repository, lead there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PAPER = "https://arxiv.org/abs/2104.10858"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)]+)\)")


class Addresses(MetadataHookInterface):
    """Sets `readme` and `urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        home = os.environ.get("PROJECT_URL", "").rstrip("/")
        metadata["urls"] = {"Paper": _PAPER}
        if home:
            text = absolute(text, home)
            metadata["urls"] |= {
                "Homepage": home,
                "Source": home,
                "Documentation": f"{home}/blob/HEAD/docs/index.md",
                "Changelog": f"{home}/blob/HEAD/CHANGELOG.md",
                "Issues": f"{home}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def absolute(text: str, home: str) -> str:
    """Markdown with its relative links, of pages and of pictures, as addresses below `home`."""
    return _LINK.sub(
        lambda found: (
            f"{found[1]}[{found[2]}]({home}/{'raw' if found[1] else 'blob'}/HEAD/{found[3]})"
        ),
        text,
    )
