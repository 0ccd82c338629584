"""Training on event recordings: configuration, loop, checkpoints. Needs torch (the extra ``train``)."""

from neurodeploy.train.activity import Activity
from neurodeploy.train.config import TEMPLATES, TrainConfig, load_config, parse_config, save_config
from neurodeploy.train.data import TrainData, load_data
from neurodeploy.train.loop import TrainResult, evaluate, load_trained, train
from neurodeploy.train.network import build_network
from neurodeploy.train.on_chip import OnChip

__all__ = [
    "TEMPLATES",
    "Activity",
    "OnChip",
    "TrainConfig",
    "TrainData",
    "TrainResult",
    "build_network",
    "evaluate",
    "load_config",
    "load_data",
    "load_trained",
    "parse_config",
    "save_config",
    "train",
]
