"""Infrastructure commands; run as subprocesses, since `app` never imports `infra`."""

import subprocess
import sys
from importlib.util import find_spec

import typer

NEEDED = ("pulumi", "pulumi_digitalocean", "pydo", "yaml")
# All arguments, including --help, go to the subprocess.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

infra_app = typer.Typer(
    no_args_is_help=True, help="Check a Pulumi stack against its account, and reconcile them."
)


@infra_app.command(context_settings=PASSED_ON)
def doctor(context: typer.Context) -> None:
    """Compare the stack's configuration with the live account. Changes nothing."""
    _run("infra.doctor", context.args)


@infra_app.command(context_settings=PASSED_ON)
def recover(context: typer.Context) -> None:
    """After a killed `pulumi up`: release the lock, import what was created, list the rest."""
    _run("infra.recover", context.args)


def _run(module: str, arguments: list[str]) -> None:
    for name in NEEDED:
        if find_spec(name) is None:
            raise ModuleNotFoundError(name=name)
    done = subprocess.run([sys.executable, "-m", module, *arguments], check=False)
    raise typer.Exit(done.returncode)
