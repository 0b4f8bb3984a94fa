"""Commands of learning: the learner, training, promotion, what models there are, drift, and what they are all worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli_options import AsJson, Broker, DataDir, FileFormat, Mapping, out, settings_of

__all__ = ["learning"]

learning = typer.Typer()


@learning.command()
def learner(
    name: Annotated[str, typer.Option(help="Unique and stable name of this learner.")] = "learner-1",
    broker: Broker = None,
    data: DataDir = None,
    web_port: Annotated[int, typer.Option(help="Port of health and metrics; 0: none.")] = 8089,
) -> None:
    """Join feedback with the vectors that were decided on, and teach the online model by what has matured.

    Apart from the workers, so that learning never takes a decision's time. Several share the joining; one of them
    learns, and another takes over where its last checkpoint was.
    """
    from app.learner import run_learner
    from app.logs import configure_logs

    settings = settings_of(broker, data, name=name, web_port=web_port)
    configure_logs(settings.log_level, settings.log_format, settings.name)
    run_learner(settings)


@learning.command()
def train(
    broker: Broker = None,
    data: DataDir = None,
    simulate: Annotated[
        int | None, typer.Option(min=1000, help="Train on so many simulated payments, not on recorded ones.")
    ] = None,
    days: Annotated[float, typer.Option(min=0.1, help="Over which simulated payments are spread.")] = 30.0,
    fraud_share: Annotated[float, typer.Option(help="Of simulated payments.")] = 0.02,
    seed: Annotated[int, typer.Option(help="Same seed, same data: the same model.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Trees, at most; fewer where more do not help.")] = 300,
    as_json: AsJson = False,
) -> None:
    """Train a batch model on recorded payments whose labels have matured, and register it as the challenger.

    Splits by time with a gap for labels to mature, fits LightGBM, calibrates, compares with the champion, the rules and
    the amount alone on the same payments, and logs all of it to MLflow (a file in the data folder, or
    MLFLOW_TRACKING_URI). Workers score with the challenger in the shadow; `pixguard promote` lets it decide.
    """
    from ops.recorded import Simulation
    from ops.train import train_and_report

    settings = settings_of(broker, data)
    simulation = None
    if simulate is not None:
        simulation = Simulation(seed=seed, payments=simulate, days=days, fraud_share=fraud_share)
    train_and_report(settings, out, simulation=simulation, seed=seed, rounds=rounds, as_json=as_json)


@learning.command()
def promote(
    version: Annotated[int | None, typer.Argument(help="Of the model; default: the challenger.")] = None,
    data: DataDir = None,
    force: Annotated[str | None, typer.Option(help="Promote even where a gate fails; the reason is recorded.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a model the champion, if it is better than the present one by more than noise, everywhere, and fast.

    Ends with status 1 where a gate does not hold, and says which.
    """
    from ops.train import promote_and_report

    if not promote_and_report(settings_of(data=data), out, number=version, force=force, as_json=as_json):
        raise typer.Exit(1)


@learning.command()
def models(
    data: DataDir = None,
    compare: Annotated[tuple[int, int] | None, typer.Option(help="Two versions, side by side.")] = None,
    rollback: Annotated[str | None, typer.Option(help="Back to the previous champion; takes the reason.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the batch models, compare two, or go back to the previous champion."""
    from ops.train import roll_back_and_report, show_models

    settings = settings_of(data=data)
    if rollback is not None:
        roll_back_and_report(settings, out, reason=rollback, as_json=as_json)
    else:
        show_models(settings, out, compared=compare, as_json=as_json)


@learning.command()
def drift(
    broker: Broker = None,
    data: DataDir = None,
    hours: Annotated[float, typer.Option(min=0.01, help="Of the stream, up to now.")] = 24.0,
    reference: Annotated[
        int | None, typer.Option(help="Version whose training window is compared with; default: the champion.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show all features.")] = False,
    fail: Annotated[bool, typer.Option("--fail", help="End with status 1 where anything has changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the payments of the last hours with those that the champion learned from, feature by feature.

    Alarms pass three bars: chance (1 % of looks, all features together), a change that matters, and what equally long
    stretches of the training window did themselves. Below: what scores were worth on labels that have matured, and
    what they will be worth on those that have not.
    """
    from ops.drift import drift_and_report

    settings = settings_of(broker, data)
    changed = drift_and_report(settings, out, hours=hours, reference=reference, everything=everything, as_json=as_json)
    if changed and fail:
        raise typer.Exit(1)


evaluate = typer.Typer(
    help="Prove what rules, online model, batch models and their blend are worth, on streams lived through in order "
    "of time. Alone it evaluates the default simulated streams."
)
learning.add_typer(evaluate, name="evaluate")

WarmUp = Annotated[float, typer.Option(min=0.05, max=0.95, help="Share of the time that is not judged.")]
Resamples = Annotated[int, typer.Option(min=20, help="Draws of chance, for the intervals.")]


@evaluate.callback(invoke_without_command=True)
def evaluate_default(context: typer.Context, as_json: AsJson = False) -> None:
    """Evaluate the default simulated streams, where no other is asked for."""
    if context.invoked_subcommand is None:
        stream(as_json=as_json)


@evaluate.command()
def stream(
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Streams, of as many seeds in a row.")] = 3,
    first_seed: Annotated[int, typer.Option(min=0, help="Of the first stream.")] = 1,
    payments: Annotated[int, typer.Option(min=1000, help="Of each stream.")] = 60_000,
    days: Annotated[float, typer.Option(min=1, help="Over which they are spread.")] = 20.0,
    fraud_share: Annotated[float, typer.Option(min=0.001, max=0.5, help="Of the payments.")] = 0.02,
    new_fraud: Annotated[
        str, typer.Option(help="Typology that begins in the middle of each stream; `none`: all are there at once.")
    ] = "fake_shop",
    warm_up: WarmUp = 0.4,
    resamples: Resamples = 200,
    data: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate on simulated streams; about six minutes on two cores.

    Each payment is scored by what could be known when it happened: the online model has learned what had matured, the
    batch model is trained anew each day. Ends with status 1 where the blend is worse than its best part by more than
    noise, or does not beat the rules.
    """
    from models.quality.streaming import StreamPlan
    from ops.evaluate import SimulatedSource, evaluate_and_report

    source = SimulatedSource(
        seeds=tuple(range(first_seed, first_seed + seeds)),
        payments=payments,
        days=days,
        fraud_share=fraud_share,
        new_fraud=None if new_fraud == "none" else new_fraud,
    )
    plan = StreamPlan(warm_up=warm_up)
    if not evaluate_and_report(settings_of(data=data), out, source, plan=plan, resamples=resamples, as_json=as_json):
        raise typer.Exit(1)


@evaluate.command()
def file(
    path: Annotated[Path, typer.Argument(help="NDJSON (also .gz), CSV or Parquet, with a column of labels.")],
    label: Annotated[str, typer.Option(help="Column of the label: 1 or 0, true or false, fraud or honest.")] = "label",
    labelled_at: Annotated[
        str | None, typer.Option(help="Column of when the label became known; default: known at maturity.")
    ] = None,
    maturity: Annotated[
        float | None, typer.Option(min=0.01, help="Hours after which labels are taken; default: as the settings say.")
    ] = None,
    mapping: Mapping = None,
    file_format: FileFormat = None,
    warm_up: WarmUp = 0.4,
    resamples: Resamples = 200,
    data: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate on your own labelled transactions, judged by your labels.

    Ends with status 1 as for simulated streams.
    """
    from models.quality.streaming import StreamPlan
    from ops.evaluate import FileSource, evaluate_and_report
    from ops.labelled_files import LabelColumns
    from tables.layout import HOUR_MS

    source = FileSource(
        path,
        format=file_format,
        mapping=mapping,
        columns=LabelColumns(label, labelled_at),
        maturity_ms=None if maturity is None else round(maturity * HOUR_MS),
    )
    plan = StreamPlan(warm_up=warm_up)
    if not evaluate_and_report(settings_of(data=data), out, source, plan=plan, resamples=resamples, as_json=as_json):
        raise typer.Exit(1)


@evaluate.command()
def online(
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Streams, of seeds 1 to this.")] = 3,
    payments: Annotated[int, typer.Option(min=1000, help="Of each stream.")] = 60_000,
    as_json: AsJson = False,
) -> None:
    """Let the candidates for the online model live through the same streams; ten minutes.

    Each payment is scored by what was known when it happened, its label is learned when it matures.
    """
    import json

    from ops.bakeoff import bake_off, print_bake_off
    from ops.recorded import Simulation, simulated_set

    streams = [
        simulated_set(Simulation(seed=seed, payments=payments, fraud_share=0.015)) for seed in range(1, seeds + 1)
    ]
    result = bake_off(streams)
    if as_json:
        print(json.dumps(result.to_dict()))  # noqa: T201 - for a pipe
    else:
        print_bake_off(result, out)
