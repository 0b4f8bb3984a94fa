"""The demo's data scientist: trains a batch model as soon as enough has matured, and offers it again later."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

__all__ = ["train_again_and_again"]

_FIRST_S = 300.0
_RETRY_S = 60.0
_AGAIN_S = 300.0
_TRAIN = ("train", "--rounds", "150")
_FORCE = ("--force", "demonstration: no model decides yet, and some minutes have too few frauds to prove one")


async def train_again_and_again(variables: Mapping[str, str], log: Path, console: Console) -> None:
    """Train and promote, until it is cancelled.

    Parameters
    ----------
    variables
        Environment of the commands: where the cluster and the registry are.
    log
        Takes what they say.
    console
        Is told how they end.
    """
    await asyncio.sleep(_FIRST_S)
    has_champion = False
    while True:
        if await _run(_TRAIN, variables, log) != 0:
            console.print(f"No batch model yet: too few frauds have matured (see {log}). Trying again in a minute.")
            await asyncio.sleep(_RETRY_S)
            continue
        passed = await _run(("promote",), variables, log) == 0
        forced = not passed and not has_champion and await _run(("promote", *_FORCE), variables, log) == 0
        has_champion |= passed or forced
        if passed:
            outcome = "It is better than what decided before by more than noise: promoted, it decides within seconds"
        elif forced:
            outcome = (
                "It is not proven to be better than the rules yet: a bank would wait, this demonstration promotes it"
            )
        else:
            outcome = "It is not better than the champion by more than noise: it stays the challenger"
        console.print(f"A batch model was trained on what has matured. {outcome} (see {log}, and `pixguard models`).")
        await asyncio.sleep(_AGAIN_S)


async def _run(arguments: tuple[str, ...], variables: Mapping[str, str], log: Path) -> int:
    """Run a command of pixguard to its end, or to the end of the demo."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app.cli",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **variables, "COLUMNS": "120"},
            start_new_session=True,  # Ctrl-C is for the demo, which ends it
        )
    try:
        return await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
