"""The compiled forms of identifiers against `pix_keys.py`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from app.domain.compiled_forms import KEY_FORMS, is_end_to_end_id, is_tax_id, key_form
from app.domain.memory import PADDING
from app.domain.pix_keys import deduce_key_type
from app.domain.pix_keys import is_end_to_end_id as is_end_to_end_id_text
from app.domain.pix_keys import is_tax_id as is_tax_id_text

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = [
    "52998224725", "11144477735", "11111111111", "00000000000", "12ABC34501DE35", "00000000000191", "00000000000000",
    "+5511987654321", "+101", "+10", "+1234567890123456", "+12345678901234567", "123e4567-e89b-12d3-a456-426655440000",
    "pix@bcb.gov.br", "a@b", "a-b@c-d.e", "a@-b", "a@b-", "a@b.", "a@.b", "a@b..c", "@b", "a@", "a@b@c", "+55@x.br",
    "a@" + "b" * 63, "a@" + "b" * 64, "a@" + "b" * 63 + ".c", "a" * 73 + "@b.c", "a" * 74 + "@b.c", "12345678@ab",
    "a_b~{c}|d`e^f?g=h/i+j*k'l&m$n#o!p%q@x", "A@b", "á@b", "",
]  # fmt: skip
MINUTES = [f"2026{month:02}{day:02}0000" for month in range(14) for day in range(33)]
MINUTES += [f"{year}0229{hour:02}59" for year in (1900, 2000, 2023, 2024, 2100) for hour in (0, 9, 19, 23, 24, 30, 99)]
MINUTES += [f"2026092113{minute:02}" for minute in range(100)]
IDS = [f"E12345678{minute}abcDEF12345" for minute in MINUTES]


def compiled(function: Callable[[int, int], int], text: str) -> int:
    """Call a compiled form on a text as it stands in a message: a quote follows."""
    data = text.encode()
    buffer = np.frombuffer(data + b'"\0' + PADDING, np.uint8)
    return function(buffer.ctypes.data, buffer.ctypes.data + len(data))


def variations(texts: list[str], seed: int) -> list[str]:
    """Return the texts, each also with every place changed, and cut and lengthened."""
    chance = random.Random(seed)
    varied = list(texts)
    for text in texts:
        for place in range(len(text) + 1):
            other = chance.choice("0123456789abfgxzAEZ@.-+_{}'[/:;`~ é")
            varied += [text[:place] + other + text[place + 1 :], text[:place] + other + text[place:], text[:place]]
    return varied


@pytest.mark.parametrize("seed", range(5))
def test_keys_and_tax_ids(seed: int) -> None:
    """Every seed text and its near misses."""
    for text in variations(SEEDS, seed):
        assert (KEY_FORMS[compiled(key_form, text)] or None) == deduce_key_type(text), f"seed {seed}: {text!r}"
        assert compiled(is_tax_id, text) == is_tax_id_text(text), f"seed {seed}: {text!r}"


def test_check_digits() -> None:
    """All endings of a few stems."""
    for stem in ("529982247", "000000000", "111111111", "12ABC34501DE", "000000000000", "ZZZZZZZZZZZZ"):
        for ending in range(100):
            text = f"{stem}{ending:02}"
            assert compiled(is_tax_id, text) == is_tax_id_text(text), text


def test_end_to_end_ids() -> None:
    """Every day of a year with too long months, leap years, hours and minutes beyond the clock, and near misses."""
    texts = IDS + variations(IDS[40:42], 0)
    assert [bool(compiled(is_end_to_end_id, text)) for text in texts] == [is_end_to_end_id_text(text) for text in texts]
    assert sum(map(is_end_to_end_id_text, IDS)) == 365 + 2 * 4 + 60
