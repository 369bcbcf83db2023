"""The `headrace` command. Each command lives in a module of its own; heavy imports wait until a command needs them."""

from __future__ import annotations

import sys

import typer

from headrace.cli import (
    audit,
    broadcast,
    check,
    demo,
    evaluate,
    generate,
    jobs,
    keys,
    live,
    models,
    quality,
    replay,
    restyle,
    serve,
    simulate,
    status,
    tenants,
    top,
    trace,
    usage,
    watch,
    whip,
)
from headrace.cli import compile as compile_command
from headrace.cli.console import conclude
from model_core.quiet import quiet_libraries

# Plain messages: an error is a line that a person and a script can both read.
app = typer.Typer(
    name="headrace",
    help="Real-time video generation: text in, frames stream out while they are still being made.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(serve.serve)
app.command()(generate.generate)
app.command()(live.live)
app.command()(watch.watch)
app.command()(whip.whip)
app.command()(replay.replay)
app.command()(broadcast.broadcast)
app.command()(restyle.restyle)
app.command()(demo.demo)
app.command()(check.check)
app.command("compile")(compile_command.compile_)
app.command("eval")(evaluate.evaluate)
app.command()(quality.quality)
listing = typer.Typer(rich_markup_mode=None)
listing.callback(invoke_without_command=True)(models.models)
listing.command("make-tiny")(models.make_tiny)
app.add_typer(listing, name="models")
app.add_typer(jobs.app, name="jobs")
app.command()(simulate.simulate)
app.command()(status.status)
app.command()(top.top)
app.command()(trace.trace)
app.command()(usage.usage)
auditing = typer.Typer(rich_markup_mode=None, help="Look at the audit log.", no_args_is_help=True)
auditing.command("list")(audit.listing)
auditing.command("verify")(audit.verify)
app.add_typer(auditing, name="audit")
keyring = typer.Typer(rich_markup_mode=None, help="Make, list, rotate and revoke API keys.", no_args_is_help=True)
keyring.command("create")(keys.create)
keyring.command("list")(keys.listing)
keyring.command("rotate")(keys.rotate)
keyring.command("revoke")(keys.revoke)
app.add_typer(keyring, name="keys")
limits = typer.Typer(rich_markup_mode=None, help="Set and list the limits of tenants.", no_args_is_help=True)
limits.command("set")(tenants.set_limits)
limits.command("list")(tenants.listing)
app.add_typer(limits, name="tenants")


def main() -> None:
    """Entry point of the console script. Exit codes: 0 done, 1 failed or unavailable, 2 bad input, 130 interrupted."""
    quiet_libraries()
    sys.exit(conclude(lambda: app(sys.argv[1:] or ["--help"], standalone_mode=False)))
