"""Warming up must really go through both stages: a specimen that is rejected would compile half of it."""

from __future__ import annotations

import subprocess
import sys

from app.domain.field_checks import TimeLimits
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from models.pipeline import _SPECIMEN, Message, Pipeline, warm_up
from models.rule_file import default_pack_text, load_rule_pack
from tables.catalog import CATALOG


def test_the_specimen_is_decided_on() -> None:
    """Both stages see it, and it comes back from a checkpoint."""
    decoder = TransactionDecoder(HashKey.from_bytes(bytes(16)), TimeLimits())
    pack = load_rule_pack(default_pack_text(), CATALOG.column_types(), "default")
    warm_up(decoder, pack)
    output = Pipeline(1, decoder, pack).push([Message(b"2", _SPECIMEN, -1)])
    assert output.rejections == []
    assert [len(batch.decided.messages) for batch in output.decided] == [1]


def test_nothing_is_left_to_compile() -> None:
    """A new process that has warmed up has every entry point of the kernel: none compiles while payments wait."""
    program = (
        "from app.domain.field_checks import TimeLimits\n"
        "from app.domain.siphash import HashKey\n"
        "from app.domain.transaction import TransactionDecoder\n"
        "from models.pipeline import warm_up\n"
        "from models.rule_file import default_pack_text, load_rule_pack\n"
        "from tables import kernel\n"
        "from tables.catalog import CATALOG\n"
        "pack = load_rule_pack(default_pack_text(), CATALOG.column_types(), 'default')\n"
        "warm_up(TransactionDecoder(HashKey.from_bytes(bytes(16)), TimeLimits()), pack)\n"
        "names = ('run', 'resolve', 'export_rows', 'measure_rows', 'restore_rows', 'mark_keys', 'drop_rows')\n"
        "print([name for name in names if not getattr(kernel, name).signatures])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
