"""A small, safe expression language over columns: rules and derived features are written in it.

The grammar is a subset of Python's, read by `ast` and never executed: numbers, column names, ``+ - * / %``,
comparisons (chained too), ``and or not``, ``a if condition else b``, membership in a tuple of literals
(``initiation in ("MANU", "QRES")``), flags (``"ON_CALL" in session_flags``), and the functions of `FUNCTIONS` and
`FORMS` in `app.domain.functions`. An expression is checked once against typed columns, then evaluated on whole batches.

**Missing is a value.** Arithmetic on a missing operand is missing; so are a division by zero and every result that is
not finite. Conditions follow Kleene's three-valued logic, as SQL's WHERE does: a comparison with a missing operand is
unknown, `not` of unknown is unknown, and a condition that is unknown as a whole is False. So a rule never fires on a
value that is missing, not even under `not` or `!=`, unless it asks: ``missing(x)``, ``coalesce(x, default)``. No third
truth value is stored: each condition compiles to two masks, surely true and surely false, which `not` swaps.

Money is in centavos, time in milliseconds: ``timestamp - dict_key_created_at < days(7)``. The clock on the wall is
Brasília's, UTC-3 all year. Session flags are unknown where none was reported: no list and an empty one look the same.
"""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.domain.columns import Array, Batch, ColumnKind, ColumnType, nobody_listed
from app.domain.compiler import Compiler, ExpressionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.domain.columns import Columns, Membership

    _Evaluate = Callable[[Batch], Array]

__all__ = ["Expression", "ExpressionError", "compile_expression"]

MAX_LENGTH = 1_000
"""Characters of an expression."""

MAX_NODES = 400
MAX_DEPTH = 40


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression.

    Parameters
    ----------
    text
        As it was written.
    kind
        NUMBER or CONDITION.
    names
        Columns that it reads, sorted.
    array_code
        From a batch to the values; for `app.domain.program.trace`, which runs many expressions at once.
    """

    text: str
    kind: ColumnKind
    names: tuple[str, ...]
    array_code: _Evaluate

    def evaluate(self, columns: Columns, n: int, listed: Membership = nobody_listed) -> Array:
        """Return the value for each row: float64 with NaN for missing, or bool; shape (n,).

        Parameters
        ----------
        columns
            The columns by name, each of shape (n,).
        n
            Number of rows.
        listed
            Membership in the allow, deny and watch lists.

        Raises
        ------
        ValueError
            Where a column's shape is not (n,).
        """
        return self.evaluate_batch(Batch(columns, n, listed))

    def evaluate_batch(self, batch: Batch) -> Array:
        """Return the value for each row of a batch that several expressions share."""
        with np.errstate(all="ignore"):
            values = self.array_code(batch)
        return values if values.shape == (batch.n,) else np.full(batch.n, values)


def compile_expression(text: str, columns: Mapping[str, ColumnType]) -> Expression:
    """Check an expression against typed columns.

    Parameters
    ----------
    text
        The expression.
    columns
        Type of each column that it may name.

    Raises
    ------
    ExpressionError
        Where the text is not of the language, names no known column, or mixes types.

    Examples
    --------
    >>> from app.domain.columns import transaction_columns
    >>> drained = compile_expression("amount_centavos / payer_balance_centavos > 0.9", transaction_columns())
    >>> rows = {"amount_centavos": np.array([95, 95, 95]), "payer_balance_centavos": np.array([100, 500, -1])}
    >>> drained.evaluate(rows, 3).tolist()
    [True, False, False]
    """
    root, source = _parse(text)
    compiler = Compiler(source, columns)
    term = compiler.term(root)
    if term.type.kind not in (ColumnKind.NUMBER, ColumnKind.CONDITION):
        compiler.wrong_type(root, "a number or a condition", term)
    return Expression(text, term.type.kind, tuple(sorted(compiler.names)), term.value)


def _parse(text: str) -> tuple[ast.expr, str]:
    """Return the tree within its limits, and the text that its positions refer to."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(MAX_LENGTH, f"at most {MAX_LENGTH} characters", str(len(text)), "split the rule")
    for position, character in enumerate(text):
        if not (character.isascii() and character.isprintable()) and character not in "\n\t":
            raise ExpressionError(position, "printable ASCII", repr(character))
        if character in "#\\":
            raise ExpressionError(position, "no comment and no escape", repr(character), "YAML has comments of its own")
    indent = len(text) - len(text.lstrip())
    source = text.replace("\n", " ").replace("\t", " ")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Python only warns of, like `1if x else 2`, is not of our language
            root = ast.parse(source[indent:], mode="eval").body
    except SyntaxError as error:
        where = indent + (error.offset or len(source) - indent + 1) - 1  # offset 0: the text ends too soon
        raise ExpressionError(min(where, len(text)), "an expression", error.msg) from None
    except (RecursionError, MemoryError):
        raise ExpressionError(0, f"at most {MAX_DEPTH} levels of nesting", "more", "split the rule") from None
    for node in ast.walk(root):
        if isinstance(node, ast.expr):
            node.col_offset += indent
            node.end_col_offset = (node.end_col_offset or 0) + indent
    _check_size(root)
    return root, source


def _check_size(root: ast.expr) -> None:
    level, depth, nodes = [root], 0, 0
    while level:
        depth += 1
        nodes += len(level)
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise ExpressionError(
                level[0].col_offset, f"at most {MAX_NODES} nodes, {MAX_DEPTH} deep", "more", "split the rule"
            )
        level = [child for node in level for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
