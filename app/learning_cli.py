"""Commands of learning: the learner, training, promotion, and what models there are."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli_options import AsJson, Broker, DataDir, out, settings_of

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
