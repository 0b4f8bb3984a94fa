"""Colours of the pages against WCAG's contrast for text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import app.web

CSS = (Path(app.web.__file__).parent / "pages" / "base.css").read_text()
LIGHT_TEXT, DARK_TEXT = CSS.split("@media (prefers-color-scheme: dark)")

PAIRS = [
    ("text", "ground"),
    ("text", "card"),
    ("muted", "ground"),
    ("muted", "card"),
    ("accent", "card"),
    ("accent", "accent-soft"),
    ("text", "accent-soft"),
    ("approve", "card"),
    ("approve", "approve-soft"),
    ("hold", "card"),
    ("hold", "hold-soft"),
    ("deny", "card"),
    ("deny", "deny-soft"),
    ("card", "accent"),
]


def _colours(css: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): #([0-9a-f]{6});", css))


def _luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("front", "ground"), PAIRS)
def test_text_stands_out_from_its_ground(scheme: str, front: str, ground: str) -> None:
    """4.5:1 or more, in both schemes."""
    colours = _colours(LIGHT_TEXT if scheme == "light" else DARK_TEXT)
    lighter, darker = sorted((_luminance(colours[front]), _luminance(colours[ground])), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5
