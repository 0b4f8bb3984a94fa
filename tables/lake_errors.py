"""What can go wrong with the lake, in words: what, where, and how to mend it. Needs no library of the lake's."""

from __future__ import annotations

import re

__all__ = ["LakeError", "LakeGapError", "StorageErrors", "told"]


class LakeError(RuntimeError):
    """Storage did not do what it was asked; the message says what, where, and how to mend it. It may be tried again."""


class LakeGapError(RuntimeError):
    """Rows would be missing between what a table holds and what was to be appended."""


def told(error: BaseException) -> str:
    """Return an error of delta-rs on one line, without colours."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|↳", "", str(error)).split())


class StorageErrors:
    """Turns whatever delta-rs raises within the block into a `LakeError`.

    Parameters
    ----------
    uri
        Of the table.
    deed
        What was tried: "cannot be ...".
    """

    def __init__(self, uri: str, deed: str) -> None:
        self._uri, self._deed = uri, deed

    def __enter__(self) -> None:
        """Begin to watch."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Turn the error, if it is one of storage's.

        Raises
        ------
        LakeError
            In its place.
        """
        if error is not None and _is_storage(error):
            text = told(error)
            raise LakeError(f"{self._uri}: cannot be {self._deed}: {text}. {_remedy(text)}") from error


def _is_storage(error: BaseException) -> bool:
    kind = type(error)
    # delta-rs has a module and a hierarchy of its own; a panic of Rust's is no `Exception` even, and delta-rs panics
    # where a file cannot be closed.
    is_delta = any(each.__name__ == "DeltaError" for each in kind.__mro__)
    return is_delta or kind.__name__ == "PanicException" or isinstance(error, OSError | ValueError)


def _remedy(text: str) -> str:
    if any(sign in text for sign in ("os error 28", "os error 27", "os error 122", "No space left")):
        return "The disk is full: free some, for example by `pixguard lake vacuum --run`; nothing is lost meanwhile."
    if any(sign in text for sign in ("os error 13", "os error 30", "Permission denied", "Forbidden", "AccessDenied")):
        return "Let the archive write there, or set `lake` to another place; nothing is lost meanwhile."
    if "Cannot cast schema" in text or "Cannot merge" in text or "failed to merge" in text.lower():
        return "A column has another type in the table than today: set `lake` to a new place."
    return "Is `lake` right, and is storage up? Nothing is lost meanwhile."
