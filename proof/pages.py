"""Tables within a page, made anew between marks that name the script they are made by."""

from __future__ import annotations


def with_tables(page: str, script: str, tables: str) -> str:
    """The text of a page with `tables` in the place of those between its marks.

    Raises ValueError where the page has no such marks.
    """
    start, end = f"<!-- made by proof/{script} -->\n", "\n<!-- end -->"
    before, mark, rest = page.partition(start)
    _, closed, after = rest.partition(end)
    if not closed:
        raise ValueError(f"the page has no tables between {start.strip()} and {end.strip()}")
    return before + mark + tables + closed + after
