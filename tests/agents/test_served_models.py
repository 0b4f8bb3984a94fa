"""The models that workers should decide by: whatever the registry does, the last good one stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agents.served_models import MAX_MODEL_BYTES, Look, RejectedModelError, ServedModels, checked
from tests.models.test_ensemble import ONLINE, batch_model


class Shelf:
    """A registry: models by alias, which may be out of reach."""

    def __init__(self) -> None:
        self.models: dict[str, tuple[int, bytes]] = {}
        self.is_down = False
        self.read = 0

    def look(self, alias: str, held: int) -> tuple[int, bytes | None]:
        """Answer as `Look` says."""
        if self.is_down:
            raise ConnectionError("out of reach")
        version, content = self.models.get(alias, (0, b""))
        if version in (0, held):
            return version, None
        self.read += 1
        return version, content

    def put(self, alias: str, version: int) -> None:
        """Let an alias point to a good model."""
        self.models[alias] = (version, batch_model(0, version).to_bytes())


def served(look: Look) -> ServedModels:
    """Return a follower that nobody has started."""
    return ServedModels({}, look, 1.0, 0.25)


async def poll(follower: ServedModels, shelf: Shelf) -> tuple[int, int, int, float]:
    """Look once for each role; the versions served then."""
    for role in ("champion", "challenger"):
        await follower._poll(shelf.look, role)
    return follower.models.versions


async def test_aliases_are_followed() -> None:
    """The registry's number names the model; what is held is not read again; what is taken away goes."""
    shelf = Shelf()
    follower = served(shelf.look)
    assert await poll(follower, shelf) == (0, 0, 0, 0.25)
    shelf.put("champion", 3)
    shelf.put("challenger", 4)
    assert await poll(follower, shelf) == (3, 4, 0, 0.25)
    assert await poll(follower, shelf) == (3, 4, 0, 0.25)
    assert shelf.read == 2
    del shelf.models["challenger"]
    assert await poll(follower, shelf) == (3, 0, 0, 0.25)


async def test_a_promoted_challenger_challenges_nobody() -> None:
    """It would only score everything twice."""
    shelf = Shelf()
    follower = served(shelf.look)
    shelf.put("champion", 3)
    shelf.put("challenger", 4)
    await poll(follower, shelf)
    shelf.put("champion", 4)
    assert await poll(follower, shelf) == (4, 0, 0, 0.25)


async def test_the_last_good_model_stays_while_the_registry_is_down() -> None:
    """And when it is back, so is the following."""
    shelf = Shelf()
    follower = served(shelf.look)
    shelf.put("champion", 3)
    await poll(follower, shelf)
    shelf.is_down = True
    assert await poll(follower, shelf) == (3, 0, 0, 0.25)
    shelf.put("champion", 5)
    shelf.is_down = False
    assert await poll(follower, shelf) == (5, 0, 0, 0.25)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no model",
        batch_model(0, 3).to_bytes()[:-1],
        replace(batch_model(0, 3), fingerprint="f" * 16).to_bytes(),
    ],
)
async def test_a_bad_model_is_refused_once(content: bytes) -> None:
    """A damaged one, and one of another catalog: the last good one decides on, until there is a better."""
    shelf = Shelf()
    follower = served(shelf.look)
    shelf.put("champion", 3)
    await poll(follower, shelf)
    shelf.models["champion"] = (4, content)
    assert await poll(follower, shelf) == (3, 0, 0, 0.25)
    assert await poll(follower, shelf) == (3, 0, 0, 0.25)
    shelf.put("champion", 5)
    assert await poll(follower, shelf) == (5, 0, 0, 0.25)


async def test_snapshots_are_taken_up() -> None:
    """Those that can be read and are of this catalog."""
    follower = served(Shelf().look)
    await follower._take(ONLINE.to_bytes())
    assert follower.models.versions == (0, 0, 9, 0.25)
    for content in (b"none", replace(ONLINE, version=10, fingerprint="f" * 16).to_bytes()):
        await follower._take(content)
        assert follower.models.versions == (0, 0, 9, 0.25)


def test_a_model_must_fit_into_a_checkpoint() -> None:
    """Every shard keeps the models that it decides by."""
    model = batch_model(1, 2)
    assert checked(model, b"") is model
    with pytest.raises(RejectedModelError, match="expected at most"):
        checked(model, bytes(MAX_MODEL_BYTES + 1))
