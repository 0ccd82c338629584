"""The report's tables on what other orders of delivery, and imperfect chips, do to the answers."""

from collections.abc import Mapping, Sequence
from typing import Any


def robustness_section(result: Mapping[str, Any] | None, layers: Sequence[str]) -> dict[str, Any] | None:
    """The table of one comparison, from ``Robustness.to_dict``, layers as given; None where it was not made."""
    if result is None:
        return None
    n = result["recordings"]
    changed = len(result["recordings_changed"])
    return {
        "summary": f"{changed} of {n} recordings change their answer at least once; {result['answers_changed']:.2%} of "
        f"all answers differ from the default run's ({result['accuracy']:.1%} right).",
        "layers": list(layers),
        "rows": [
            {
                "name": trial["name"],
                "accuracy": f"{trial['accuracy']:.1%}",
                "changed": f"{trial['answers_changed']} of {n}",
                "spikes": [
                    "" if share is None else f"{share:.2%}" for share in map(trial["spikes_changed"].get, layers)
                ],
            }
            for trial in result["trials"]
        ],
    }
