"""The README's feature table, rendered from the catalog: `python -m ops.readme` writes it into the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tables.catalog import CATALOG

__all__ = ["BEGIN", "END", "README", "ReadmeError", "features_block", "render_features", "replace_features"]

README = Path(__file__).resolve().parent.parent / "README.md"
"""The file beside the packages."""

BEGIN = "<!-- features -->"
END = "<!-- /features -->"

_COLUMNS = ("name", "stage", "family", "unit", "why", "typologies")


class ReadmeError(ValueError):
    """A README in which the table's place is not marked exactly once."""


def render_features(rows: Sequence[Mapping[str, str]]) -> str:
    r"""Return the block between the markers: a folded Markdown table, one line per feature.

    Parameters
    ----------
    rows
        As `Catalog.rows` gives them: name, stage, family, unit, why, typologies.

    Examples
    --------
    >>> row = dict.fromkeys(("stage", "family", "unit", "typologies"), "x") | {"name": "paid", "why": "a|b"}
    >>> print(render_features([row]).splitlines()[-3])
    | `paid` | x | x | x | a\|b | x |
    """
    lines = [
        "<details>",
        f"<summary>All {len(rows)} features</summary>",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'---|' * len(_COLUMNS)}",
    ]
    for row in rows:
        cells = [row[column].replace("|", "\\|") for column in _COLUMNS]
        lines.append(f"| `{cells[0]}` | {' | '.join(cells[1:])} |")
    return "\n".join([*lines, "", "</details>"])


def features_block(text: str) -> str:
    r"""Return what stands between the markers, without the line breaks beside them.

    Raises
    ------
    ReadmeError
        When a marker is missing or stands twice, or the two are in the wrong order.

    Examples
    --------
    >>> features_block("before\n<!-- features -->\nold\n<!-- /features -->\nafter")
    'old'
    """
    start, end = _bounds(text)
    return text[start:end].strip("\n")


def replace_features(text: str, block: str) -> str:
    r"""Return the README with `block` between the markers.

    Raises
    ------
    ReadmeError
        As `features_block`.

    Examples
    --------
    >>> replace_features("<!-- features -->\nold\n<!-- /features -->\nafter", "new")
    '<!-- features -->\nnew\n<!-- /features -->\nafter'
    """
    start, end = _bounds(text)
    return f"{text[:start]}\n{block}\n{text[end:]}"


def _bounds(text: str) -> tuple[int, int]:
    for marker in (BEGIN, END):
        if text.count(marker) != 1:
            raise ReadmeError(f"README: expected {marker} once, got {text.count(marker)} times")
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    if start > end:
        raise ReadmeError(f"README: expected {BEGIN} before {END}")
    return start, end


def _main() -> None:
    text = README.read_text(encoding="utf-8")
    README.write_text(replace_features(text, render_features(CATALOG.rows())), encoding="utf-8")


if __name__ == "__main__":
    _main()
