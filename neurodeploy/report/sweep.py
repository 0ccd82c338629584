"""The report's table of a sweep: the network compiled in other ways, where ``sweep.json`` lies in the run folder."""

from collections.abc import Mapping
from typing import Any


def sweep_section(result: Mapping[str, Any]) -> dict[str, Any]:
    """The table, from ``Sweep.to_dict``."""
    best = result["best"]
    return {
        "recordings": result["recordings"],
        "source": result["source"],
        "rows": [
            {
                "v_min": "own" if row["v_min"] is None else str(row["v_min"]),
                "weight_bits": row["weight_bits"],
                "threshold_scale": f"{row['threshold_scale']:g}",
                "accuracy": "" if row["accuracy"] is None else f"{row['accuracy']:.1%}",
                "synops": "" if row["synops"] is None else f"{row['synops']:,.0f}",
                "note": row["error"] or ("best" if row == best else ""),
            }
            for row in result["rows"]
        ],
    }
