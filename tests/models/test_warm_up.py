"""Warming up must really go through both stages: a specimen that is rejected would compile half of it."""

from __future__ import annotations

import subprocess
import sys

from app.domain.field_checks import TimeLimits
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from models.rules.file import default_pack_text, load_rule_pack
from models.stages.pipeline import _SPECIMEN, Message, Pipeline, warm_up
from tables.catalog import CATALOG


def test_the_specimen_is_decided_on() -> None:
    """Both stages see it, and it comes back from a checkpoint."""
    decoder = TransactionDecoder(HashKey.from_bytes(bytes(16)), TimeLimits())
    pack = load_rule_pack(default_pack_text(), CATALOG.column_types(), "default")
    warm_up(decoder, pack)
    output = Pipeline(1, decoder, pack).push([Message(b"2", _SPECIMEN, -1)])
    assert output.rejections == []
    assert [len(batch.decided.messages) for batch in output.decided] == [1]


_WARM = """
import sys
from numba.core.dispatcher import Dispatcher
from app.domain.field_checks import TimeLimits
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from models.stages.pipeline import _SPECIMEN, Message, Pipeline, warm_up
from models.rules.file import default_pack_text, load_rule_pack
from tables import kernel
from tables.catalog import CATALOG
pack = load_rule_pack(default_pack_text(), CATALOG.column_types(), "default")
decoder = TransactionDecoder(HashKey.from_bytes(bytes(16)), TimeLimits())
warm_up(decoder, pack)

def compiled():
    found = [one for module in list(sys.modules.values()) for one in list(vars(module).values())
             if isinstance(one, Dispatcher) and one.__module__.split(".")[0] in ("app", "models", "tables")]
    return {one.__module__ + "." + one.__name__: len(one.signatures) for one in found}
"""


def _told_when_warm(program: str) -> str:
    """What a program prints that goes on in a new process which has warmed up."""
    done = subprocess.run([sys.executable, "-c", _WARM + program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_nothing_is_left_to_compile() -> None:
    """A new process that has warmed up has every entry point of the kernel: none compiles while payments wait."""
    program = """
names = ("run", "resolve", "export_rows", "measure_rows", "restore_rows", "mark_keys", "drop_rows")
print([name for name in names if not getattr(kernel, name).signatures])
"""
    assert _told_when_warm(program) == "[]"


def test_a_model_compiles_nothing() -> None:
    """Whatever the size of its trees: compiling would hold the loop for seconds when the first model comes."""
    program = """
import numpy as np
from models.calibration import Calibration
from models.batch.model import BatchModel
from models.ensemble import Models
from models.stages.receivers import FEATURES_VERSION
from tests.models.forests import random_forest
before = compiled()
rng = np.random.default_rng(1)
for leaves in (2, 10, 20, 40, 100):
    forest = random_forest(rng, trees=3, leaves=leaves)
    model = BatchModel(1, "m", FEATURES_VERSION, forest, Calibration(), 0)
    for rows in (1, 3, 5, 200):
        Models(champion=model).scores(np.zeros((rows, len(CATALOG)), np.float32), np.ones(rows, np.uint64),
                                      np.ones(rows, bool))
    Models(champion=model).reasons(np.zeros((2, len(CATALOG)), np.float32))
late = {name for name, count in compiled().items() if count != before.get(name)}
print(late)
"""
    assert _told_when_warm(program) == "set()"


def test_a_step_over_several_partitions_compiles_nothing() -> None:
    """Numba compiles for each kind of array: what joins columns may make others than a single batch has."""
    program = """
def payment(key):
    said = b'"receiver_account":"2"'
    return _SPECIMEN.replace(said, said.replace(b"2", key)).replace(b"aaaaaaaaaaa", key.rjust(11, b"a"))

before = compiled()
pipeline = Pipeline(8, decoder, pack)
keys = [str(number).encode() for number in range(60)]
output = pipeline.push([Message(key, payment(key), -1) for key in keys])
[state.export() for state in pipeline.states]
after = compiled()
late = {name for name in after if after[name] != before.get(name)}
print(len(output.received.accepted), len(before) > 20, late)
"""
    assert _told_when_warm(program) == "8 True set()"
