"""One Delta table that is appended to exactly once, whatever dies, repeats or writes beside it.

Each commit names, for each Kafka partition in it, the last offset that it holds (Delta's `txn` action, whose `app_id`
is TOPIC-PARTITION). delta-rs accepts the same pair twice, so three things together make it exact: what the table holds
by its log is looked up and left out; the table handle stays open, so that a commit is checked against all that others
have committed since that look, and fails where they wrote for the same partition; and then all of it begins anew. Rows
may not start behind a gap either, for what lies in it would never be written.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError

from tables.lake_errors import LakeError, LakeGapError, StorageErrors, told
from tables.lake_schema import PARTITION_COLUMN

__all__ = ["HOOKS", "WRITER", "LakeTable", "Span", "app_id", "table_uri"]

WRITER = WriterProperties(
    # Numbers of a feature rarely repeat enough: dictionaries take three times the processor time, for no fewer bytes.
    compression="ZSTD",
    compression_level=1,
    default_column_properties=ColumnProperties(dictionary_enabled=False),
)
"""How Parquet files are written."""

# Old log files are what makes old versions readable: `pixguard lake vacuum` removes them, and knows what is pinned; no
# commit does, whoever makes it.
_CONFIGURATION = {"delta.enableExpiredLogCleanup": "false"}
HOOKS = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
"""What follows a commit."""

_COMMIT_RETRIES = 30
_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Span:
    """The stretch of one Kafka partition that rows come from.

    Parameters
    ----------
    topic, partition
        Of the rows.
    base
        First offset that was read, whether or not it gave a row.
    last
        Last offset that was read.
    first_held
        First offset that the topic still held when reading began: nothing before it can be missed.
    """

    topic: str
    partition: int
    base: int
    last: int
    first_held: int = 0

    @property
    def app_id(self) -> str:
        """Under which the table's log remembers the partition."""
        return app_id(self.topic, self.partition)


def app_id(topic: str, partition: int) -> str:
    """Return the name under which a table's log remembers a Kafka partition."""
    return f"{topic}-{partition}"


def table_uri(lake: str, name: str) -> str:
    """Return where a table of the lake lies: a folder, or a URL."""
    return f"{lake.rstrip('/')}/{name}"


class LakeTable:
    """A table of the lake, for one process that appends; made when it is first needed.

    All methods block, and may be called by any thread; one at a time gets through.

    Parameters
    ----------
    uri
        Folder or URL.
    schema
        Columns as declared; those that the table lacks are added with the first rows that have them.
    """

    def __init__(self, uri: str, schema: pa.Schema) -> None:
        self.uri = uri
        self._schema = schema
        self._table: DeltaTable | None = None
        self._was_open = False
        self._lock = threading.Lock()

    def positions(self, app_ids: Sequence[str], *, refresh: bool = False) -> dict[str, int]:
        """Return the last offset that the table holds of each; those that it holds nothing of are left out.

        Parameters
        ----------
        app_ids
            Of partitions, see `app_id`.
        refresh
            Whether to read what others have written since.

        Raises
        ------
        LakeError
            When storage does not answer.
        """
        with self._lock, StorageErrors(self.uri, "read"):
            table = self._open(refresh=refresh)
            return _positions(table, app_ids)

    def append(self, rows: pa.Table, spans: Sequence[Span]) -> int:
        """Append what the table does not hold yet, in one commit, and return how many rows that were.

        Parameters
        ----------
        rows
            Columns as declared.
        spans
            What they come from: each partition once.

        Raises
        ------
        LakeError
            When storage fails. It may or may not have taken the rows: ask again, with the same or with more.
        LakeGapError
            When rows before them are missing in the table.
        """
        with self._lock:
            for _ in range(_ROUNDS):
                with StorageErrors(self.uri, "appended to"):
                    table = self._open()
                    held = _positions(table, [span.app_id for span in spans])
                    if _gap(spans, held):
                        # Others may have filled it since the handle was last used.
                        table = self._open(refresh=True)
                        held = _positions(table, [span.app_id for span in spans])
                    if gap := _gap(spans, held):
                        raise LakeGapError(gap)
                    fresh, transactions = _unwritten(rows, spans, held)
                    if not transactions:
                        return 0
                    if self._commit(table, fresh, transactions):
                        return int(fresh.num_rows)
            raise LakeError(
                f"{self.uri}: others wrote to it first, {_ROUNDS} times. Run fewer replicas of the archive."
            )

    def _commit(self, table: DeltaTable, rows: pa.Table, transactions: list[Transaction]) -> bool:
        """Write rows and log entry; False where others were first, and what is unwritten must be looked up again."""
        columns = {item.name for item in table.schema().fields}
        done = False
        try:
            write_deltalake(
                table,
                rows,
                mode="append",
                schema_mode=None if columns == set(rows.column_names) else "merge",
                writer_properties=WRITER,
                commit_properties=CommitProperties(app_transactions=transactions, max_commit_retries=_COMMIT_RETRIES),
                post_commithook_properties=HOOKS,
            )
            done = True
        except DeltaError as error:
            if not _is_conflict(error):
                raise
        finally:
            if not done:
                # What the handle knows may be older than the log by now.
                self._table = None
        return done

    def _open(self, *, refresh: bool = False) -> DeltaTable:
        if self._table is not None:
            if refresh:
                self._table.update_incremental()
            return self._table
        # A folder whose maker was killed before the first commit has no log, and is no table yet.
        if not DeltaTable.is_deltatable(self.uri):
            if self._was_open:
                raise LakeError(
                    f"{self.uri}: expected the table that was here before, got none. Bring it back (is a disk not "
                    "mounted?); or start the archive again, to write what the topics still hold into a new one."
                )
            try:
                DeltaTable.create(
                    self.uri, self._schema, mode="error", partition_by=[PARTITION_COLUMN], configuration=_CONFIGURATION
                )
            except DeltaError as error:
                # Another replica was quicker.
                if not DeltaTable.is_deltatable(self.uri):
                    raise LakeError(f"{self.uri}: the table cannot be made: {told(error)}") from error
        self._table = DeltaTable(self.uri)
        self._was_open = True
        return self._table


def _positions(table: DeltaTable, app_ids: Sequence[str]) -> dict[str, int]:
    found = {name: table.transaction_version(name) for name in app_ids}
    return {name: version for name, version in found.items() if version is not None}


def _gap(spans: Sequence[Span], held: Mapping[str, int]) -> str | None:
    """Return what is wrong where rows are missing between what a table holds and what is to be appended."""
    for span in spans:
        expected = max(held.get(span.app_id, -1) + 1, span.first_held)
        if span.base > expected:
            return (
                f"{span.app_id}: expected rows from offset {expected}, which the table does not hold yet, got them "
                f"from {span.base}. Start the archive again: it reads from where the table ends."
            )
    return None


def _unwritten(rows: pa.Table, spans: Sequence[Span], held: Mapping[str, int]) -> tuple[pa.Table, list[Transaction]]:
    """Return what a table that holds `held` lacks, and what its log is to remember then."""
    transactions = []
    for span in spans:
        last = held.get(span.app_id, -1)
        if last < span.last:
            transactions.append(Transaction(span.app_id, span.last))
        if last >= span.base:
            is_held = pc.and_(
                pc.equal(rows["topic_partition"], span.partition), pc.less_equal(rows["topic_offset"], last)
            )
            rows = rows.filter(pc.invert(is_held))
    return rows, transactions


def _is_conflict(error: DeltaError) -> bool:
    """Tell whether a commit failed because of another writer's, not of storage."""
    text = str(error).lower()
    return any(
        sign in text for sign in ("concurrent", "metadata changed", "protocol changed", "version already exists")
    )
