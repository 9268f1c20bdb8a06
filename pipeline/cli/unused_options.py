"""Options that a call gives and would not use: refused, because whoever gives one relies on it."""

import click
from click.core import ParameterSource


def refuse_unused(why: str, *names: str) -> None:
    """Raises click's UsageError if the command that runs was given one of these parameters.

    `names` are parameters as the command's function has them; `why` follows "has no effect".
    """
    ctx = click.get_current_context()
    unused = [
        parameter.opts[-1] if isinstance(parameter, click.Option) else parameter.human_readable_name
        for parameter in ctx.command.params
        if parameter.name in names and ctx.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if unused:
        have = "has" if len(unused) == 1 else "have"
        raise click.UsageError(f"{' and '.join(unused)} {have} no effect {why}")
