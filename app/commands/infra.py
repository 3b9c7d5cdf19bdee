"""Commands about the infrastructure; they run beside this program, which never imports it."""

import subprocess
import sys
from importlib.util import find_spec

import typer

NEEDED = ("pulumi", "pulumi_digitalocean", "pydo", "yaml")
# All words, --help as well, are the started program's.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

infra_app = typer.Typer(
    no_args_is_help=True, help="Look at a Pulumi stack and its account, and bring them together."
)


@infra_app.command(context_settings=PASSED_ON)
def doctor(context: typer.Context) -> None:
    """Compare the stack's configuration with the live account. Changes nothing."""
    _run("infra.doctor", context.args)


@infra_app.command(context_settings=PASSED_ON)
def recover(context: typer.Context) -> None:
    """After a killed `pulumi up`: lift the lock, take in what was made, name what is left over."""
    _run("infra.recover", context.args)


def _run(module: str, words: list[str]) -> None:
    for name in NEEDED:
        if find_spec(name) is None:
            raise ModuleNotFoundError(name=name)
    done = subprocess.run([sys.executable, "-m", module, *words], check=False)
    raise typer.Exit(done.returncode)
