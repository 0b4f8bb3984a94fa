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


def test_a_step_over_several_partitions_compiles_nothing() -> None:
    """Numba compiles for each kind of array: what joins columns may make others than a single batch has."""
    program = (
        "import sys\n"
        "from numba.core.dispatcher import Dispatcher\n"
        "from app.domain.field_checks import TimeLimits\n"
        "from app.domain.siphash import HashKey\n"
        "from app.domain.transaction import TransactionDecoder\n"
        "from models.pipeline import Message, Pipeline, _SPECIMEN, warm_up\n"
        "from models.rule_file import default_pack_text, load_rule_pack\n"
        "from tables.catalog import CATALOG\n"
        "def compiled():\n"
        "    found = [one for module in list(sys.modules.values()) for one in list(vars(module).values())\n"
        "             if isinstance(one, Dispatcher) and one.__module__.split('.')[0] in ('app', 'models', 'tables')]\n"
        "    return {one.__module__ + '.' + one.__name__: len(one.signatures) for one in found}\n"
        "pack = load_rule_pack(default_pack_text(), CATALOG.column_types(), 'default')\n"
        "decoder = TransactionDecoder(HashKey.from_bytes(bytes(16)), TimeLimits())\n"
        "warm_up(decoder, pack)\n"
        "before = compiled()\n"
        "pipeline = Pipeline(8, decoder, pack)\n"
        "keys = [str(number).encode() for number in range(60)]\n"
        'said = b\'"receiver_account":"2"\'\n'
        'values = [_SPECIMEN.replace(said, said.replace(b"2", key)).replace(b"aaaaaaaaaaa", key.rjust(11, b"a"))'
        " for key in keys]\n"
        "output = pipeline.push([Message(key, value, -1) for key, value in zip(keys, values)])\n"
        "[state.export() for state in pipeline.states]\n"
        "after = compiled()\n"
        "late = {name for name in after if after[name] != before.get(name)}\n"
        "print(len(output.received.accepted), len(before) > 20, late)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "8 True set()"
