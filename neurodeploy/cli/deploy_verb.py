"""``neurodeploy deploy``."""

from typing import Any

from pydantic import Field

from neurodeploy.cli.output import say, table
from neurodeploy.cli.recordings import RecordingOptions, one_recording
from neurodeploy.cli.verb import verb, write_resolved
from neurodeploy.deploy.deploy import STATUS, deploy
from neurodeploy.deploy.plan import Plan, make_plan
from neurodeploy.deployment import open_deployment


class DeployOptions(RecordingOptions):
    """Options of ``neurodeploy deploy``. The results go into the run folder."""

    device: str = Field(description="the kit, name:index, e.g. speck2fdevkit:0; 'neurodeploy devices' lists them.")
    power_hz: float = Field(100.0, gt=0, le=100, description="power readings per second and rail.")
    flash: bool = Field(False, description="also write flash.bin, the image for booting without a host.")
    dry_run: bool = Field(False, description="check everything that needs no vendor package, print the plan, and stop.")


@verb(DeployOptions)
def command(options: DeployOptions) -> dict[str, Any]:
    """Run one recording on a dev kit and keep what came back.

    Writes device.json, events_hw.npz, power.csv and the vendor's own configuration file into RUN. Needs the vendor's
    library (exit code 3 without it), except for --dry-run. Not loaded by the vendor tool yet: the adapter is written
    from public documentation and tested against a substitute.
    """
    deployment = open_deployment(options.run)
    events, _, until_us = one_recording(options.events, options.index, deployment.program.input_shape)
    clock = options.slow_clock_hz
    plan = make_plan(deployment, options.device, events, until_us=until_us, slow_clock_hz=clock)
    _print(plan)
    if options.dry_run:
        say("Dry run: nothing was sent and nothing written.")
        return {"dry_run": True, "plan": plan.to_dict(), "status": STATUS}
    deployed = deploy(
        deployment,
        plan.device,
        events,
        options.run,
        until_us=until_us,
        slow_clock_hz=clock,
        power_hz=options.power_hz,
        flash=options.flash,
    )
    write_resolved(options, options.run / "deploy.yaml")
    result = deployed.to_dict()
    table(f"{deployed.vendor} on {plan.device}", ("layer", "spikes"), list(result["spikes"].items()))
    say(f"wrote {options.run}; compare with: neurodeploy compare {options.run} {options.run / 'events_hw.npz'}")
    return result


def _print(plan: Plan) -> None:
    rows = [
        (
            route.layer,
            route.core,
            "host" if route.takes_input else "",
            "; ".join(route.destinations),
            "yes" if route.monitored else "no",
        )
        for route in plan.routes
    ]
    table(f"{plan.target} on {plan.device}", ("layer", "core", "input", "sends to", "monitored"), rows)
    say(f"program {plan.program_sha256[:12]}; {plan.events} events, {plan.duration_us / 1e6:g} s in real time")
    if plan.slow_clock_hz is not None:
        say(f"slow clock: {plan.slow_clock_hz:g} Hz")
