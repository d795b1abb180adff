"""The command line: `relay serve`. Every setting is an environment variable and a flag (`relay/config.py`)."""

import os
import sys
from collections.abc import Callable
from typing import Any

import click
import trio

from relay import config, service
from relay.eventlog.errors import StoreError
from relay.version import VERSION


@click.group()
@click.version_option(VERSION)
def main() -> None:
    """A self-hosted AT Protocol relay."""


def _with_setting_flags(command: Callable[..., None]) -> Callable[..., None]:
    """One option per row of the settings table; the environment variable has the same name."""
    for setting in reversed(config.TABLE):
        note = f"{setting.help} [${setting.variable}; default: {setting.default or 'unset'}]"
        command = click.option(setting.flag, setting.name, default=None, help=note, metavar="VALUE")(command)
    return command


@main.command()
@_with_setting_flags
def serve(**flags: Any) -> None:
    """Run the relay until SIGTERM or SIGINT."""
    variables = dict(os.environ)
    variables |= {setting.variable: flags[setting.name] for setting in config.TABLE if flags[setting.name] is not None}
    try:
        settings = config.load(variables)
    except config.ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    try:
        trio.run(service.serve, settings, config.unknown_variables(os.environ))
    except* (StoreError, OSError) as group:
        for failure in _leaves(group):
            click.echo(f"relay: {failure}", err=True)
        sys.exit(1)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves


if __name__ == "__main__":
    main()
