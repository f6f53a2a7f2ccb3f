"""The commands and their flags. Each body says what it loads and calls; everything else is in the module it names.

Stands between typer and the modules of this package. Knows no settings but by key.
"""
# ruff: noqa: PLC0415 - each command imports only what it needs, so that a small question is answered quickly

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from modelmq.cli import config, dead_commands, failures
from modelmq.cli.flags import Config, Models, Output, Set, StateDir, Yes, found
from modelmq.errors import ConfigError
from modelmq.settings import Settings

app = typer.Typer(
    name="modelmq",
    help="Serves machine-learning models as microservices over RabbitMQ.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
topology_app = typer.Typer(help="What exists on the broker for your models.", no_args_is_help=True)
broker_app = typer.Typer(help="A private RabbitMQ in the state folder, in the background.", no_args_is_help=True)
app.add_typer(topology_app, name="topology")
app.add_typer(broker_app, name="broker")
app.add_typer(dead_commands.app, name="dead")

Delete = Annotated[
    list[str] | None,
    typer.Option("--delete", metavar="QUEUE", help="Delete this queue even when it is in use; may be repeated."),
]
Replace = Annotated[
    list[str] | None,
    typer.Option("--replace", metavar="NAME", help="Delete and make anew this queue or exchange; may be repeated."),
]
Adopt = Annotated[bool, typer.Option("--adopt", help="Take over a virtual host that somebody else made.")]


@app.callback()
def _root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    # Around every command, so that also a test's runner sees sentences and statuses.
    context.with_resource(failures.told(debug=debug))


@app.command()
def up(
    config_file: Config = None,
    models: Models = None,
    port: Annotated[int | None, typer.Option("--port", help="HTTP port; 0 takes any free one.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Workers per role.")] = 1,
    state_dir: StateDir = None,
    set_: Set = None,
) -> None:
    """Serve models on this machine: a private RabbitMQ, a gateway and workers, until Ctrl-C.

    Without --models, three demo models are trained and served.
    """
    from modelmq.cli import up_command

    settings = found(config_file, set_, {"models_dir": models, "gateway.port": port, "state_dir": state_dir})
    raise typer.Exit(up_command.run(settings, workers, os.environ))


@app.command()
def gateway(
    config_file: Config = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="HTTP port.")] = None,
    state_dir: StateDir = None,
    set_: Set = None,
) -> None:
    """Run one gateway: HTTP in, messages out."""
    from modelmq.cli import services

    flags = {"gateway.host": host, "gateway.port": port, "state_dir": state_dir}
    services.run_gateway(config.attached(found(config_file, set_, flags)))


@app.command()
def worker(
    config_file: Config = None,
    role: Annotated[str | None, typer.Option("--role", help="Which models, as which user.")] = None,
    models: Models = None,
    health_port: Annotated[int | None, typer.Option("--health-port", help="Health and metrics; 0: any.")] = None,
    state_dir: StateDir = None,
    set_: Set = None,
) -> None:
    """Run one worker: messages in, models run, replies out."""
    from modelmq.cli import services

    flags = {
        "worker.role": role,
        "models_dir": models,
        "worker.health_port": health_port,
        "state_dir": state_dir,
    }
    services.run_worker(config.attached(found(config_file, set_, flags)))


@app.command()
def infer(
    model: Annotated[str, typer.Argument(help="The model, or model/version.")],
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="The request: JSON, @file, or - for standard input.")
    ] = None,
    url: Annotated[str | None, typer.Option("--url", help="http://… of a gateway, or amqp(s)://… of a broker.")] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait for the answer.")] = 60.0,
    config_file: Config = None,
    state_dir: StateDir = None,
    set_: Set = None,
) -> None:
    """Ask a model and print its answer as JSON. Without --data, the model's own sample question.

    Ends with 0 when it is answered, 3 when the request is wrong, 4 when a retry may help, 5 when the model failed.
    """
    from modelmq.cli import infer as asking

    settings = config.attached(found(config_file, set_, {"state_dir": state_dir}))
    asking.run(settings, asking.Question(model, data, url, timeout_s), os.environ)


@app.command()
def status(config_file: Config = None, state_dir: StateDir = None, set_: Set = None, output: Output = "text") -> None:
    """Show services, models, and queues with their consumers and depths."""
    from modelmq.cli import status as looking

    settings = config.attached(found(config_file, set_, {"state_dir": state_dir}))
    looking.run(settings, as_json=output == "json")


@app.command()
def env(config_file: Config = None, state_dir: StateDir = None, set_: Set = None) -> None:
    """Print shell lines for other programs: the HTTP URL, and the AMQP URL of a user that may only ask."""
    from modelmq.cli import env as printing

    printing.run(config.attached(found(config_file, set_, {"state_dir": state_dir})))


@topology_app.command("plan", cls=failures.StatusTwoIsChanges)
def topology_plan(  # noqa: PLR0913, PLR0917 - one for each flag
    config_file: Config = None,
    models: Models = None,
    state_dir: StateDir = None,
    set_: Set = None,
    delete: Delete = None,
    replace: Replace = None,
    adopt: Adopt = False,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the plan in this file, for apply.")] = None,
    output: Output = "text",
) -> None:
    """Show what apply would do, and do nothing. Ends with 0 for nothing, 2 for changes, 1 for an error."""
    from modelmq.cli import topology

    with failures.general():
        settings = _topology_settings(config_file, models, state_dir, set_)
        topology.show_plan(settings, topology.allowed(delete, replace, adopt=adopt), as_json=output == "json", out=out)


@topology_app.command("apply")
def topology_apply(  # noqa: PLR0913, PLR0917 - one for each flag
    plan_file: Annotated[
        Path | None, typer.Argument(metavar="[PLANFILE]", help="A plan that was kept with plan --out.")
    ] = None,
    config_file: Config = None,
    models: Models = None,
    state_dir: StateDir = None,
    set_: Set = None,
    delete: Delete = None,
    replace: Replace = None,
    adopt: Adopt = False,
    yes: Yes = False,
    output: Output = "text",
) -> None:
    """Create or correct users, permissions, exchanges, queues and policies for the models, or carry out a kept plan.

    Deletes only what an earlier apply made and no model needs any more, and that only with --yes or from a plan.
    """
    from modelmq.cli import topology

    settings = _topology_settings(config_file, models, state_dir, set_)
    if plan_file is not None:
        if delete or replace or adopt or models:
            raise ConfigError("A kept plan says what is done: give --delete, --replace, --adopt, --models to plan.")
        topology.apply_saved(settings, plan_file, as_json=output == "json")
        return
    allowed = topology.allowed(delete, replace, adopt=adopt)
    topology.apply(settings, allowed, as_json=output == "json", yes=yes)


@topology_app.command("drift", cls=failures.StatusTwoIsChanges)
def topology_drift(
    config_file: Config = None,
    models: Models = None,
    state_dir: StateDir = None,
    set_: Set = None,
    output: Output = "text",
) -> None:
    """Show in what the broker differs from the topology. Ends with 0 for nothing, 2 for drift, 1 for an error."""
    from modelmq.cli import topology

    with failures.general():
        settings = _topology_settings(config_file, models, state_dir, set_)
        topology.show_drift(settings, as_json=output == "json")


@topology_app.command("destroy")
def topology_destroy(
    config_file: Config = None,
    models: Models = None,
    state_dir: StateDir = None,
    set_: Set = None,
    delete: Delete = None,
    yes: Yes = False,
    output: Output = "text",
) -> None:
    """Delete everything that ModelMQ made on the broker, and nothing else; nothing at all while a queue is in use."""
    from modelmq.cli import topology

    settings = _topology_settings(config_file, models, state_dir, set_)
    topology.destroy(settings, delete, as_json=output == "json", yes=yes)


@topology_app.command("render")
def topology_render(
    out: Annotated[Path, typer.Option("--out", help="The file to write; only you can read it.")],
    config_file: Config = None,
    models: Models = None,
    state_dir: StateDir = None,
    set_: Set = None,
    _format: Annotated[
        Literal["definitions"], typer.Option("--format", help="A definitions file of RabbitMQ.")
    ] = "definitions",
    broker_version: Annotated[str, typer.Option("--for", help="The version of RabbitMQ that will read it.")] = "3.10",
) -> None:
    """Write the topology as a file, with hashes of the users' passwords. Talks to no broker."""
    from modelmq.cli import topology

    settings = _topology_settings(config_file, models, state_dir, set_)
    topology.render(settings, broker_version, out)


@topology_app.command("rotate")
def topology_rotate(
    service: Annotated[Literal["gateway", "worker", "client", "operator"], typer.Argument(help="Whose secret.")],
    role: Annotated[str | None, typer.Option("--role", help="Of workers: which role's.")] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait for services.")] = 300.0,
    config_file: Config = None,
    state_dir: StateDir = None,
    set_: Set = None,
) -> None:
    """Give a service a new user and password while it runs, and remove the old user once nothing uses it.

    Services that read the secret's file switch by themselves, without a failed request. Interrupted, run it again.
    """
    from modelmq.cli import rotate

    rotate.run(config.attached(found(config_file, set_, {"state_dir": state_dir})), service, role, timeout_s)


@broker_app.command("start")
def broker_start(config_file: Config = None, state_dir: StateDir = None, set_: Set = None) -> None:
    """Start the private RabbitMQ, or find it running, and print where it is."""
    from modelmq.cli import broker

    broker.start(found(config_file, set_, {"state_dir": state_dir}).settings)


@broker_app.command("stop")
def broker_stop(config_file: Config = None, state_dir: StateDir = None, set_: Set = None) -> None:
    """Stop the private RabbitMQ and everything that belongs to it."""
    from modelmq.cli import broker

    broker.stop(found(config_file, set_, {"state_dir": state_dir}).settings)


@app.command()
def version() -> None:
    """Print the versions of ModelMQ and Python."""
    from importlib.metadata import version as version_of

    typer.echo(f"modelmq {version_of('modelmq')}, Python {sys.version.split()[0]}")


def main() -> None:
    """The entry point."""
    app()


def _topology_settings(
    config_file: Path | None, models: Path | None, state_dir: Path | None, pairs: list[str] | None
) -> Settings:
    return config.attached(found(config_file, pairs, {"models_dir": models, "state_dir": state_dir}))
