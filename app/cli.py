"""The command `pixguard`: options to settings, settings to the functions that do the work, errors to words."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.markup import escape

from app.cli_options import Broker, DataDir, FileFormat, Mapping, Rules, err, out, settings_of
from app.lake_cli import lake_commands
from app.learning_cli import learning

__all__ = ["app", "main"]

app = typer.Typer(
    name="pixguard",
    help="Decides on every Pix payment in milliseconds, and keeps an exact, replayable record.\n\n"
    "Start with [bold]pixguard run[/bold]: broker, simulated traffic, workers and a web view on this machine.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(learning)
app.add_typer(lake_commands)


def jars_dir() -> Path:
    """Cache of the broker's jars, shared by all data directories of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pixguard" / "kafka"


@app.command()
def run(
    broker: Broker = None,
    data: DataDir = None,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Worker processes.")] = 2,
    rate: Annotated[float, typer.Option(min=0.1, help="Simulated payments per second.")] = 100.0,
) -> None:
    """Show everything at work on this machine, until Ctrl-C.

    Starts a Kafka broker (unless --broker names one), makes the topics, starts workers and simulated traffic, and shows
    the decisions as they come. Data survive in the data folder.
    """
    from ops.demo import run_demo

    settings = settings_of(broker, data)
    run_demo(settings, workers=workers, rate=rate, own_broker=broker is None, jars_dir=jars_dir())


@app.command()
def broker(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 9092,
    data: DataDir = None,
) -> None:
    """Run a one-node Apache Kafka on this machine, until Ctrl-C.

    Needs neither Java nor Maven beforehand: the first start downloads the jars (45 MB, checksums are locked). Topics
    and offsets survive a restart.
    """
    from ops.broker import LocalBroker

    settings = settings_of(None, data)
    with LocalBroker(settings.data_dir / "kafka", jars_dir=jars_dir(), port=port) as node:
        out.print(f"Kafka is ready on [bold]{node.bootstrap}[/bold]; log: {node.log_file}. Ctrl-C stops it.")
        try:
            node.wait()
        except KeyboardInterrupt:
            out.print("Stopping …")


@app.command()
def topics(
    broker: Broker = None,
    fix: Annotated[bool, typer.Option("--fix", help="Alter settings that differ.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Create nothing, only report.")] = False,
    asyncapi: Annotated[bool, typer.Option("--asyncapi", help="Print the AsyncAPI document instead.")] = False,
) -> None:
    """Create the topics that are missing, and say how the others differ from their declaration.

    Ends with status 1 where a difference remains. Partitions and replication are reported, never altered.
    """
    from ops.commands import print_asyncapi, show_topics

    settings = settings_of(broker)
    if asyncapi:
        print_asyncapi(settings)
    elif not asyncio.run(show_topics(settings, out, create=not check, fix=fix)):
        raise typer.Exit(1)


@app.command()
def worker(
    name: Annotated[str | None, typer.Option(help="Unique and stable name of this worker.")] = None,
    broker: Broker = None,
    data: DataDir = None,
    web_port: Annotated[int | None, typer.Option(help="Port of the web view; 0: none.")] = None,
    rules: Rules = None,
) -> None:
    """Run one worker: it shares the partitions with all others of its installation.

    Health, metrics and the web view answer on the web port from the first second on. SIGTERM or Ctrl-C hands the
    partitions over; after a crash a worker of the same name takes up exactly where the last checkpoint left them.
    """
    from app.allocator import tune_allocator

    tune_allocator()

    from app.logs import configure_logs
    from app.worker import run_worker

    settings = settings_of(broker, data, name=name, web_port=web_port, rules_file=rules)
    configure_logs(settings.log_level, settings.log_format, settings.name)
    run_worker(settings)


@app.command()
def simulate(
    broker: Broker = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Write files into this folder, not to Kafka.")] = None,
    file_format: Annotated[Literal["ndjson", "parquet"], typer.Option("--format", help="Of the files.")] = "ndjson",
    rate: Annotated[float, typer.Option(min=0.01, help="Payments per second of event time.")] = 100.0,
    speed: Annotated[
        float, typer.Option(min=0.01, help="Event time against the wall clock; above 1 needs --duration.")
    ] = 1.0,
    duration: Annotated[float | None, typer.Option(help="Seconds of event time; default: endless.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Messages, at most.")] = None,
    fraud_share: Annotated[float, typer.Option(help="Share of payments that are frauds (real: 0.000042).")] = 0.003,
    feedback_scale: Annotated[
        float, typer.Option(help="Factor on the delays of MED feedback: 1 takes weeks, 0.001 minutes.")
    ] = 0.001,
    seed: Annotated[int, typer.Option(help="Same seed, same traffic.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Generate Pix traffic of a seeded population, with every typology as a story, and the MED feedback that follows.

    To Kafka in order of arrival at the given rate, or to files (--out). With --speed above 1, event time starts in the
    past and ends at the clock, so the traffic needs a --duration.
    """
    from ops.commands import simulate_files, simulate_kafka

    traffic = {"seed": seed, "rate_per_s": rate, "duration_s": duration, "count": count, "fraud_share": fraud_share}
    if out_dir is not None:
        simulate_files(out_dir, file_format, traffic, feedback_scale, out, quiet=quiet)
    else:
        asyncio.run(simulate_kafka(settings_of(broker), traffic, feedback_scale, speed, out, quiet=quiet))


@app.command()
def send(
    file: Annotated[Path, typer.Argument(help="NDJSON (also .gz), CSV or Parquet.")],
    broker: Broker = None,
    mapping: Mapping = None,
    file_format: FileFormat = None,
    rate: Annotated[float | None, typer.Option(help="Messages per second, at most.")] = None,
    speed: Annotated[float | None, typer.Option(help="Event time against the wall clock; default: at once.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows, at most.")] = None,
    shift_to_now: Annotated[
        bool,
        typer.Option(
            "--shift-to-now",
            help="Move all times so that the newest payment happens now; each payment gets an id of its own.",
        ),
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the decisions and report them.")] = True,
) -> None:
    """Send a file of transactions, and report what was decided, what was rejected, and why.

    Ends with status 1 where a row was rejected or stayed without an answer.
    """
    from ops.commands import send_and_report

    options = {"rate": rate, "speed": speed, "limit": limit, "shift_to_now": shift_to_now, "wait": wait}
    if not asyncio.run(send_and_report(settings_of(broker), file, mapping, file_format, options, out)):
        raise typer.Exit(1)


@app.command()
def replay(
    file: Annotated[
        Path | None, typer.Argument(help="A transaction file; default: what the topics still hold.")
    ] = None,
    rules: Rules = None,
    broker: Broker = None,
    data: DataDir = None,
    mapping: Mapping = None,
    file_format: FileFormat = None,
) -> None:
    """Decide again on a recorded stretch, or a file, by other rules, and show what would change.

    With the rules of the live run the decisions come out byte for byte.
    """
    from ops.commands import replay_and_report

    replay_and_report(settings_of(broker, data), file, rules, mapping, file_format, out)


@app.command()
def state(
    key: Annotated[str, typer.Argument(help="A Pix key, or ISPB/ACCOUNT. It is neither logged nor shown in full.")],
    broker: Broker = None,
    data: DataDir = None,
    at: Annotated[int | None, typer.Option("--at", help="Epoch milliseconds at which the windows end.")] = None,
) -> None:
    """Show what is known of a Pix key or an account, as of the last checkpoint."""
    from ops.commands import show_state

    if not asyncio.run(show_state(settings_of(broker, data), key, at, out)):
        raise typer.Exit(1)


@app.command()
def bench(
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the tables.")] = False,
    keys: Annotated[int, typer.Option(min=1000, help="Profiles that the worker holds.")] = 1_000_000,
    events: Annotated[int, typer.Option(min=1000, help="Payments of the backlog.")] = 1_000_000,
    seconds: Annotated[float, typer.Option(min=1, help="How long each load is offered.")] = 20.0,
    broker_log: Annotated[
        Literal["auto", "memory", "disk"],
        typer.Option(help="Where the broker keeps its log; auto: in memory if 20 GiB are free."),
    ] = "auto",
    models: Annotated[bool, typer.Option(help="Measure the path with an online and a batch model, too.")] = True,
    page: Annotated[bool, typer.Option("--page", help="Write the figures into ops/performance.md.")] = False,
) -> None:
    """Measure the whole path on this machine, against stock Faust in the same run, and what each part costs.

    Starts a broker and workers of its own: full load on one core, recovery after kill -9, latency at fixed rates free
    of coordinated omission, and both again with models in force. Takes about nine minutes and 18 GB of memory or disk.
    """
    from ops.bench import BenchPlan, run_bench

    plan = BenchPlan(keys=keys, events=events, latency_s=seconds, stock_s=seconds, broker_log=broker_log)
    plan = plan if models else replace(plan, model_payments=0)
    run_bench(plan, out, jars_dir=jars_dir(), as_json=json, page=page)


@app.command()
def capacity(
    rate: Annotated[float, typer.Option(min=1, help="Payments in your busiest second.")] = 5000.0,
    keys: Annotated[float, typer.Option(min=1, help="Accounts and Pix keys that pay or are paid.")] = 10_000_000,
    mean_rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Payments per second over months; default: 18 % of --rate, as nationally."),
    ] = None,
    payments: Annotated[
        float | None,
        typer.Option(min=0, help="By a customer in 30 days: sizes profiles; default: as --mean-rate comes to."),
    ] = None,
    replication: Annotated[int, typer.Option(min=1, max=5, help="Copies of each topic, with acks=all.")] = 3,
    headroom: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of each core, disk and network that stays free at the peak.")
    ] = 0.3,
    standbys: Annotated[int, typer.Option(min=0, max=3, help="Warm copies of each partition's state.")] = 0,
    loss: Annotated[
        float | None, typer.Option(min=1, help="Seconds, at most, until a lost worker's payments are decided again.")
    ] = None,
    compression: Annotated[
        Literal["none", "lz4"], typer.Option(help="Of all topics; the workers of today send none.")
    ] = "none",
    bench: Annotated[
        Path | None, typer.Option(help="Output of `pixguard bench --json`: its figures instead of the page's.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure on this machine first: ten minutes.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write ops/capacity.md with the figures used.")] = False,
) -> None:
    """Size an installation: workers, partitions, memory, changelogs, recovery, network and brokers for your numbers.

    Computed from costs measured once and kept in ops/capacity.md, where formulas and assumptions are explained; one
    worker and one broker may be lost. --measure and --bench put figures of your own machine in their place.
    """
    from ops.bench.scale import Demand, run_capacity

    demand = Demand(
        rate_per_s=rate,
        customers=keys,
        mean_rate_per_s=mean_rate,
        payments=payments,
        replication=replication,
        headroom=headroom,
        standbys=standbys,
        loss_s=loss,
        compression=compression,
    )
    run_capacity(out, demand, jars_dir=jars_dir(), bench=bench, remeasure=measure, write=write)


@app.command()
def config(
    toml: Annotated[bool, typer.Option("--toml", help="Print a TOML file with every setting.")] = False,
) -> None:
    """Show every setting: its value, where it can be set, and what it means."""
    from ops.commands import show_config

    show_config(settings_of(), out, as_toml=toml)


def _known_errors() -> tuple[type[BaseException], ...]:
    """Errors whose message is all that a user needs."""
    from aiokafka.errors import KafkaError

    from app.connection import ClusterConnectionError
    from app.settings import SettingsError
    from app.web.service import WebServiceError
    from models.batch.model import BatchModelError
    from models.batch.registry import RegistryError
    from models.batch.training_set import TrainingSetError
    from models.drift.reference import DriftError
    from models.rules.file import RulePackError
    from ops.bench.capacity import CapacityError
    from ops.bench.stand import BenchError
    from ops.bench.stock_measure import StockError
    from ops.demo import DemoError
    from ops.files import FileError
    from ops.java import BrokerError
    from ops.mapping import MappingError
    from ops.send import SendError
    from ops.state import KeyFormError
    from ops.topic_admin import TopicError
    from tables.lake_errors import LakeError, LakeGapError

    return (
        SettingsError,
        ClusterConnectionError,
        BrokerError,
        TopicError,
        RulePackError,
        BatchModelError,
        DriftError,
        RegistryError,
        TrainingSetError,
        WebServiceError,
        DemoError,
        BenchError,
        CapacityError,
        StockError,
        FileError,
        MappingError,
        SendError,
        KeyFormError,
        LakeError,
        LakeGapError,
        KafkaError,
        OSError,
    )


def main() -> NoReturn:
    """Run the command line; a foreseeable error is told in words, without a traceback."""
    # A service manager's stop is the user's Ctrl-C: what a command has started ends with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not isinstance(error, _known_errors()):
            raise
        err.print(f"[bold red]Error:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
