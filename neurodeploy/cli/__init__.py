"""The command line. Each verb is one module, imported when it is used, so that ``--help`` answers at once."""

import importlib
import json
import os
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import click

from neurodeploy import __version__
from neurodeploy.errors import CheckFailed, NeurodeployError, WorkerStoppedError

#: verb -> what ``neurodeploy --help`` says of it, in the order of a project's life.
VERBS = {
    "train": "Train a network from a YAML file; writes the run folder with its graph and held-out recordings.",
    "convert": "Convert a trained ANN (.onnx) into a spiking network for a chip, with a report of what it costs.",
    "check": "Check a network against a chip: every rule it breaks, before anything is compiled.",
    "calibrate": "Choose weight ranges and thresholds on recordings, so that the chip fires as the trained network.",
    "quantize": "Turn a network's weights, thresholds and bounds into the chip's integers.",
    "map": "Place the layers of a network on the chip's cores.",
    "compile": "quantize + map + lower: write the chip configuration program.json.",
    "emulate": "Run recordings through the bit-accurate event-driven emulator.",
    "data": "Inspect, convert and draw event recordings.",
    "validate": "Compare the float, quantized, time-stepped and event-driven network on labelled recordings.",
    "yield": "Emulate a network on many virtual analog chips: how many of them stay above an accuracy.",
    "sweep": "Compile a network in many ways and compare accuracy and load on labelled recordings.",
    "diverge": "Find the first neuron and time at which two runs of a recording differ, and the cause.",
    "report": "Write report.html, one self-contained page about a run folder.",
    "deploy": "Run a recording on a dev kit through the vendor's library; --dry-run prints the plan without it.",
    "compare": "Say what differs between two networks or runs; or a chip's recorded spikes against the emulator's.",
    "devices": "List the connected dev kits.",
    "targets": "List the chips, show one chip's cores and limits, or which chips hold a network.",
    "doctor": "Show versions, optional packages and what this machine can run.",
}


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"neurodeploy.cli.{cmd_name}_verb").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="neurodeploy")
def neurodeploy() -> None:
    """From a trained spiking network to a verified chip configuration.

    Exit codes: 0 ok, 1 a check failed, 2 usage or input error, 3 device or vendor library missing.
    """


def main() -> None:
    """Run the command line; every expected error is one message and one exit code, never a traceback."""
    as_json = "--json" in sys.argv[1:]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0":
        # torchrun runs the command in several processes: the first prints the result.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        code = neurodeploy.main(standalone_mode=False)
    except WorkerStoppedError as error:
        code = error.exit_code
    except NeurodeployError as error:
        _report(str(error), error.code, as_json, error.result if isinstance(error, CheckFailed) else {})
        code = error.exit_code
    except click.ClickException as error:
        if as_json:
            _report(error.format_message(), "usage", as_json)
        else:
            error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        _report("interrupted.", "interrupted", as_json)
        code = 130
    except BrokenPipeError:
        # The reader of our output (head, less) went away: not an error, and nothing more can be said to it.
        sys.stderr.close()
        code = 0
    sys.exit(code or 0)


def _report(message: str, code: str, as_json: bool, result: Mapping[str, Any] = MappingProxyType({})) -> None:
    if as_json:
        click.echo(json.dumps({**result, "error": {"code": code, "message": message}}, sort_keys=True))
    click.echo(f"error[{code}]: {message}", err=True)
