"""``neurodeploy train``."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from neurodeploy.cli.output import say
from neurodeploy.cli.verb import Options, verb
from neurodeploy.deployment import GRAPH_FILE
from neurodeploy.errors import ConfigError, GraphError, TrainError
from neurodeploy.graph.file import save_graph


class TrainOptions(Options):
    """Options of ``neurodeploy train``."""

    settings: Path = Field(
        description="YAML file of data, network and training; start from neurodeploy/train/templates/digits.yaml."
    )
    out: Path = Field(Path("runs/train"), description="run folder to write.", json_schema_extra={"short": "-o"})
    set: tuple[str, ...] = Field(
        (), description="change a setting: --set epochs=3 --set optimizer.lr=0.01; may be repeated."
    )
    resume: bool = Field(False, description="continue from the newest checkpoint in the run folder.")
    init: Path | None = Field(
        None, description="start from the weights of this run folder or model.safetensors, to fine-tune."
    )


@verb(TrainOptions, config_flag=False)
def command(options: TrainOptions) -> dict[str, Any]:
    """Train a network from a YAML file.

    Writes model.safetensors, graph.onnx (what compile takes; none where no graph holds such neurons), metrics.jsonl,
    run.json, checkpoints/, the resolved train.yaml and, for simulated recordings, test_events.npz.

    On several processes: torchrun --nproc-per-node=N -m neurodeploy train SETTINGS.
    """
    try:
        import torch
    except ImportError as error:
        raise TrainError(
            "training needs torch, which is not installed.", remedy="pip install 'torch>=2.4'", code="torch-missing"
        ) from error
    from neurodeploy.graph.torch_reader import trace
    from neurodeploy.train.config import load_config
    from neurodeploy.train.loop import train
    from neurodeploy.train.parallel import processes

    with processes() as team:
        with team.together():
            changes = dict(map(_assignment, options.set))
            if options.init is not None:
                changes["init"] = str(options.init.resolve())
            config = load_config(options.settings, changes)
        result = train(config, options.out, resume=options.resume)
        wrote = ""
        with team.together():
            if team.first:
                sample = torch.zeros(result.data.n_time_steps, *result.data.test.sensor_size)
                try:
                    save_graph(trace(result.network, sample), options.out / GRAPH_FILE)
                    wrote = f"wrote {options.out / GRAPH_FILE}"
                except GraphError as error:  # the network is trained all the same
                    wrote = f"wrote no {GRAPH_FILE}: {error}"
    say(f"test accuracy {result.test_accuracy:.1%}; {wrote}")
    return {"out": str(options.out), "test_accuracy": result.test_accuracy, "metrics": result.metrics}


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(
            f"--set {text}: is not of the form FIELD=VALUE.", remedy="write, for example, --set epochs=3", code="set"
        )
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--set {text}: {value!r} is not a YAML value.", remedy="quote it for the shell.", code="set"
        ) from error
