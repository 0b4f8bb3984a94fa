"""What a partition decides by: rules, lists and models, changed so that a replay after a crash decides the same.

Rules and lists change between two checkpoints. Models change often, and no batch may wait for them: they are announced
one checkpoint ahead, for an offset that the partition has not reached.
"""

from __future__ import annotations

from app.domain.records import Records, before_offset, from_offset
from app.topics import ENRICHED
from models.ensemble import NO_MODELS, PARTS, Models
from models.rules.file import load_rule_pack
from models.rules.lists import Lists
from models.rules.pack import RulePack
from models.stages.receivers import FEATURES_VERSION
from tables.catalog import CATALOG
from tables.partition import PartitionState

__all__ = ["InForce"]

_RULES = "rules"
_LISTS = "lists"
_PACK_PREFIX = "pack/"
_MODEL_PREFIX = "model/"
_NEXT_PREFIX = "next/"
_NEXT_FROM = "next/from"


class InForce:
    """Control inputs of one partition, kept in its state.

    Parameters
    ----------
    state
        Of the partition.
    pack
        In force where the state names none.

    Attributes
    ----------
    pack, lists, models
        That decide now.
    announced, switch_at
        Models that will, and the offset of `pix-enriched` from which on; None where nothing is announced.
    """

    def __init__(self, state: PartitionState, pack: RulePack) -> None:
        self.pack = pack
        self.lists = Lists()
        self.models = NO_MODELS
        self.announced: Models | None = None
        self.switch_at: int | None = None
        self._state = state
        self._packs = {pack.fingerprint.encode(): pack}  # to read one takes a tenth of a second

    def put(self, pack: RulePack, lists: Lists, models: Models | None = None) -> None:
        """Decide by these from now on: between two checkpoints, of which the next one records it.

        Parameters
        ----------
        pack, lists
            Put in force.
        models
            Put in force too; None leaves those that are.
        """
        self.pack, self.lists = pack, lists
        fingerprint = pack.fingerprint
        self._state.set_control(_RULES, fingerprint.encode())
        self._state.set_control(_PACK_PREFIX + fingerprint, pack.text.encode())
        self._state.set_control(_LISTS, lists.to_bytes())
        self._packs[fingerprint.encode()] = pack
        if models is not None:
            self.models = models
            self._record(_MODEL_PREFIX, models)

    def resume(self) -> bool:
        """After recovery, take up what the last checkpoint names; whether there was any."""
        fingerprint = self._state.control(_RULES)
        if fingerprint is None:
            return False
        self.pack = self.pack_of(fingerprint)
        self.lists = Lists.from_bytes(self._state.control(_LISTS) or Lists().to_bytes())
        self.models = self._restored(_MODEL_PREFIX)
        announced_from = self._state.control(_NEXT_FROM)
        if announced_from:
            self.announced, self.switch_at = self._restored(_NEXT_PREFIX), int(announced_from)
        return True

    def pack_of(self, fingerprint: bytes) -> RulePack:
        """Return a rule pack by which the partition has decided.

        Raises
        ------
        LookupError
            When the state has never seen it.
        """
        pack = self._packs.get(fingerprint)
        if pack is None:
            text = self._state.control(_PACK_PREFIX + fingerprint.decode())
            if text is None:
                raise LookupError(f"rule pack {fingerprint.decode()} is not in the state")
            pack = self._packs[fingerprint] = load_rule_pack(
                text.decode(), CATALOG.column_types(), f"pack {fingerprint.decode()}"
            )
        return pack

    def announce(self, models: Models, ahead: int) -> None:
        """Let other models decide from an offset on that lies ahead; the next checkpoint records it.

        They must not decide before that checkpoint is acknowledged (`is_announced`): a crash would bring back a state
        that does not know them, and what they decided would be decided otherwise.

        Parameters
        ----------
        models
            To be put in force.
        ahead
            Records of `pix-enriched` that the present models still decide on.
        """
        self.announced = models
        self.switch_at = (self._state.next_offset(ENRICHED.name) or 0) + ahead
        self._record(_NEXT_PREFIX, models)
        self._state.set_control(_NEXT_FROM, b"%d" % self.switch_at)

    @property
    def is_announced(self) -> bool:
        """Whether a recovery would find the announcement."""
        return self._state.is_durable(_NEXT_FROM)

    def split(self, records: Records) -> tuple[Records | None, Records | None]:
        """What of a batch the present models decide on, and what the announced ones."""
        if self.switch_at is None or records.next_offset <= self.switch_at:
            return records, None
        if records.base >= self.switch_at:
            return None, records
        return before_offset(records, self.switch_at), from_offset(records, self.switch_at)

    def switch(self) -> None:
        """Put the announced models in force."""
        if self.announced is not None:
            self.models = self.announced
        self.announced = self.switch_at = None
        for name in PARTS:
            self._state.set_control(_MODEL_PREFIX + name, self._state.control(_NEXT_PREFIX + name) or b"")
            self._state.set_control(_NEXT_PREFIX + name, b"")
        self._state.set_control(_NEXT_FROM, b"")

    def _record(self, prefix: str, models: Models) -> None:
        for name, content in models.contents().items():
            self._state.set_control(prefix + name, content)

    def _restored(self, prefix: str) -> Models:
        """Models of a checkpoint; none where they read another catalog, under which nothing is decided any more."""
        models = Models.from_contents(lambda name: self._state.control(prefix + name))
        return models if models.fingerprints <= {FEATURES_VERSION} else NO_MODELS
