"""Whether the events of a deployment are the input of its network, which a time-stepped run takes them for."""

from neurodeploy.deployment import Deployment
from neurodeploy.errors import ValidationError


def check_given(deployment: Deployment) -> None:
    """Refuse time-stepped runs of a network whose events are changed on the way to it, or go to several inputs.

    Raises:
        ValidationError: they are.
    """
    inputs = deployment.mapping["inputs"]
    changed = [entry["name"] for entry in inputs if not entry["as_given"]]
    if changed or len(inputs) > 1:
        what = (
            f"the settings change the events of {', '.join(changed)} before they enter the network"
            if changed
            else f"the network has {len(inputs)} inputs"
        )
        raise ValidationError(
            f"a time-stepped run takes the events as the network's only input; {what}.",
            remedy="compare event_driven with recorded, or validate the network compiled without these settings on "
            "events that were changed the same way.",
            code="not-as-given",
        )
