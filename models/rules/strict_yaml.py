"""YAML without its traps: no repeated keys, no aliases, and the line of every entry of a list at the top."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

__all__ = ["StrictYamlError", "read_yaml"]


class StrictYamlError(ValueError):
    """Text that is no such YAML.

    Parameters
    ----------
    faults
        Each with its line, where that is known.
    """

    def __init__(self, *faults: tuple[int | None, str]) -> None:
        self.faults = faults
        super().__init__("; ".join(f"line {line}: {message}" for line, message in faults))


class _NoAliases(yaml.SafeLoader):
    """YAML without aliases: nested ones stand for a tree that grows exponentially."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]  # types-pyyaml leaves it out
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed", event.start_mark)
        return super().compose_node(parent, index)


def read_yaml(text: str) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Return the mapping that the text holds, and for each list in it the lines on which its entries begin.

    Raises
    ------
    StrictYamlError
        Where the text is no YAML mapping, repeats a key, uses an alias, or holds other than plain values.
    """
    try:
        root = yaml.compose(text, Loader=_NoAliases)
    except yaml.MarkedYAMLError as error:
        line = None if error.problem_mark is None else error.problem_mark.line + 1
        raise StrictYamlError((line, f"expected YAML, got: {error.problem}")) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise StrictYamlError((None, f"expected YAML, got: {str(error).splitlines()[0]}")) from None
    if not isinstance(root, yaml.MappingNode):
        raise StrictYamlError((None, "expected a mapping of names to values"))
    repeated = [
        (key.start_mark.line + 1, f"{key.value}: expected one key of this name, got several")
        for key in _repeated_keys(root)
    ]
    if repeated:
        raise StrictYamlError(*repeated)
    try:
        content = yaml.SafeLoader("").construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = None if error.problem_mark is None else error.problem_mark.line + 1
        raise StrictYamlError((line, f"expected plain values, got: {error.problem}")) from None
    except (ValueError, TypeError) as error:  # a date such as 2026-13-01
        raise StrictYamlError((None, f"expected plain values, got: {error}")) from None
    lines = {
        key.value: [entry.start_mark.line + 1 for entry in value.value]
        for key, value in root.value
        if isinstance(value, yaml.SequenceNode)
    }
    return content, lines


def _repeated_keys(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield key
                seen.add(key.value)
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            yield from _repeated_keys(entry)
