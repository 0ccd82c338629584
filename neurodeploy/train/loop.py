"""The training loop: seeded, checkpointed, and the same bit for bit whether or not it was interrupted."""

import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import neurodeploy
from neurodeploy.errors import ConfigError, TrainError
from neurodeploy.events import EventDataset, save_npz
from neurodeploy.files import canonical_json, write_json, write_text
from neurodeploy.nn import reset_states
from neurodeploy.train.activity import Activity
from neurodeploy.train.checkpoint import Position, checkpoint_path, latest_checkpoint, load_tensors, save_tensors
from neurodeploy.train.config import DigitsData, TrainConfig, load_config, save_config
from neurodeploy.train.data import TrainData, batches, epoch_order, load_data
from neurodeploy.train.network import build_network
from neurodeploy.train.optimizer import build_optimizer, learning_rate, optimizer_tensors, restore_optimizer
from neurodeploy.train.progress import TrainProgress

MODEL, CONFIG, METRICS, RUN, TEST_EVENTS = (
    "model.safetensors",
    "train.yaml",
    "metrics.jsonl",
    "run.json",
    "test_events.npz",
)


@dataclass(frozen=True)
class TrainResult:
    """What a finished run left.

    Attributes:
        run: the run folder.
        model: its ``model.safetensors``.
        network: the trained network, in evaluation mode; ``[B * T, C, H, W]`` to spikes ``[B * T, outputs]``.
        data: the recordings it was trained and tested on.
        metrics: one record per epoch, as in ``metrics.jsonl``.
    """

    run: Path
    model: Path
    network: torch.nn.Module
    data: TrainData
    metrics: list[dict[str, Any]]

    @property
    def test_accuracy(self) -> float:
        """Share of test recordings classified correctly after the last epoch, 0..1."""
        return float(self.metrics[-1]["test_accuracy"])


def train(config: TrainConfig, out_dir: str | Path, *, resume: bool = False, quiet: bool = False) -> TrainResult:
    """Train a network on event recordings.

    The order of the recordings and every random number of torch derive from ``(config.seed, epoch)``, so a run that was
    killed and resumed ends with the same weights, bit for bit, as one that was not (same machine, same ``threads``).
    Every recording starts from silent neurons, also in networks whose layers are ``stateful``.

    Args:
        config: the settings (``load_config``).
        out_dir: run folder; written are ``train.yaml`` (resolved settings), ``run.json`` (seed, versions, hashes),
            ``metrics.jsonl`` (one record per epoch), ``checkpoints/``, ``model.safetensors``, and ``test_events.npz``
            when the recordings are simulated.
        resume: continue from the newest checkpoint of ``out_dir``; a finished run is returned as it is.
        quiet: no progress on the terminal.

    Raises:
        TrainError: ``out_dir`` holds a run already (without ``resume``), one of other settings or data, or a damaged
            one; or loss or weights are no longer finite.
        ConfigError: the network does not fit the data.
        EventError: the data cannot be read.
    """
    run = Path(out_dir)
    checkpoint = latest_checkpoint(run)
    if not resume and (checkpoint is not None or (run / MODEL).exists()):
        raise TrainError(
            f"{run}: holds a training run already.",
            remedy="continue it with resume (--resume), or choose another folder.",
            code="train-exists",
        )
    if checkpoint is None and (run / MODEL).exists():
        raise TrainError(
            f"{run}: holds {MODEL} but no checkpoint, so there is nothing to resume from.",
            remedy="choose another folder; load_trained() reads the finished network.",
            code="train-exists",
        )
    with _deterministic(config), TrainProgress(config.epochs, quiet=quiet) as progress:
        progress.say("preparing the recordings")
        data = load_data(config.data)
        network = build_network(
            config, input_shape=data.train.sensor_size, n_time_steps=data.n_time_steps, n_classes=data.n_classes
        )
        optimizer = build_optimizer(network, config.optimizer)
        origin = Position(0, config.sha256(), data.digests())
        start, metrics = 0, []
        if checkpoint is not None:
            start = _restore(checkpoint, origin, network, optimizer)
            metrics = _read_metrics(run / METRICS, start)
        _write_run_files(run, config, data, origin)
        write_text(run / METRICS, "".join(canonical_json(record) + "\n" for record in metrics))
        progress.say(
            f"{len(data.train)} train and {len(data.test)} test recordings, {data.n_time_steps} steps of "
            f"{data.dt_us / 1000:g} ms" + (f"; continuing after epoch {start}" if start else "")
        )
        for epoch in range(start, config.epochs):
            began = time.perf_counter()
            record = {"epoch": epoch + 1, **_train_epoch(config, data, network, optimizer, epoch, progress)}
            record |= {f"test_{k}": v for k, v in evaluate(network, data, data.test, config).items()}
            record["seconds"] = round(time.perf_counter() - began, 3)
            metrics.append(record)
            with (run / METRICS).open("a", encoding="utf-8") as file:
                file.write(canonical_json(record) + "\n")
            finished = epoch + 1
            if finished % config.checkpoint_every == 0 or finished == config.epochs:
                _save_checkpoint(run, finished, origin, network, optimizer)
            progress.say(
                f"epoch {finished}/{config.epochs}  loss {record['loss']:.4f}  train {record['accuracy']:.2%}  "
                f"test {record['test_accuracy']:.2%}  {record['seconds']:.1f} s"
            )
        final = Position(config.epochs, origin.config_sha256, origin.data_sha256)
        save_tensors(run / MODEL, network.state_dict(), final)
    return TrainResult(run, run / MODEL, network.eval(), data, metrics)


def evaluate(
    network: torch.nn.Module, data: TrainData, which: EventDataset, config: TrainConfig
) -> dict[str, float | dict[str, float]]:
    """Loss, accuracy, rates (spikes per neuron and step) and synaptic operations per recording, without learning."""
    network.eval()
    tally = _Tally()
    with torch.no_grad(), Activity(network) as activity:
        for x, labels in batches(data, which, np.arange(len(which)), config.batch_size):
            counts = _output_counts(network, activity, x, labels)
            loss = F.cross_entropy(config.loss.gain * counts, labels)
            tally.add(loss, counts, labels, activity)
    return tally.means()


def load_trained(run: str | Path) -> tuple[torch.nn.Module, TrainConfig]:
    """Rebuild the network of a run folder with its trained weights.

    Returns:
        the network in evaluation mode (``[B * T, C, H, W]`` to spikes ``[B * T, outputs]``) and its configuration.

    Raises:
        TrainError: the folder holds no finished run, or its files do not belong together.
    """
    run = Path(run)
    tensors, position = load_tensors(run / MODEL)
    config = load_config(run / CONFIG)
    try:
        facts = json.loads((run / RUN).read_text(encoding="utf-8"))
        channels, height, width = facts["input_shape"]
        n_time_steps, n_classes = int(facts["n_time_steps"]), int(facts["n_classes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainError(
            f"{run / RUN}: cannot be read ({error}).", remedy="train again, or restore the file.", code="train-run"
        ) from error
    if position.config_sha256 != config.sha256():
        raise TrainError(
            f"{run}: {CONFIG} was changed after {MODEL} was trained.",
            remedy=f"restore {CONFIG}, or train again into another folder.",
            code="train-config-changed",
        )
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            config, input_shape=(channels, height, width), n_time_steps=n_time_steps, n_classes=n_classes
        )
    _load_state(run / MODEL, network, tensors)
    return network.eval(), config


def _train_epoch(
    config: TrainConfig,
    data: TrainData,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    progress: TrainProgress,
) -> dict[str, float | dict[str, float]]:
    network.train()
    _seed(config.seed, epoch + 1)
    order = epoch_order(len(data.train), config.seed, epoch)
    steps_per_epoch = -(-len(data.train) // config.batch_size)
    progress.begin_epoch(epoch + 1, steps_per_epoch)
    tally = _Tally()
    with Activity(network) as activity:
        for i, (x, labels) in enumerate(batches(data, data.train, order, config.batch_size)):
            step = epoch * steps_per_epoch + i
            lr = learning_rate(config.optimizer, step, config.epochs * steps_per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = lr
            counts = _output_counts(network, activity, x, labels)
            loss = F.cross_entropy(config.loss.gain * counts, labels)
            total = loss
            if config.loss.synops_weight > 0:
                total = loss + config.loss.synops_weight * activity.synops / (1e6 * labels.numel())
            if not bool(torch.isfinite(total)):
                raise TrainError(
                    f"the loss is {total.item()} in epoch {epoch + 1}, batch {i + 1}.",
                    remedy="lower optimizer.lr, or set optimizer.clip_grad_norm.",
                    code="train-diverged",
                )
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            if config.optimizer.clip_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), config.optimizer.clip_grad_norm)
            optimizer.step()
            if config.max_weight is not None:
                _limit_weights(network, config.max_weight)
            tally.add(loss.detach(), counts.detach(), labels, activity)
            progress.batch()
    # A NaN weight silences its neurons, so the loss does not show it.
    for name, tensor in network.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise TrainError(
                f"{name} is not finite after epoch {epoch + 1}.",
                remedy="lower optimizer.lr, or set optimizer.clip_grad_norm.",
                code="train-diverged",
            )
    return tally.means()


def _output_counts(network: torch.nn.Module, activity: Activity, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Spikes of each output over the recording, ``[B, outputs]``."""
    reset_states(network)
    activity.begin(x)
    output = network(x)
    needed = int(labels.max()) + 1
    if not isinstance(output, torch.Tensor) or output.dim() != 2 or len(output) != len(x) or output.shape[1] < needed:
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ConfigError(
            f"The network returned {found} for an input of shape {tuple(x.shape)}; expected is [B * T, outputs] = "
            f"[{len(x)}, at least {needed}].",
            remedy="flatten the output maps of the network to one axis, and keep batch and time folded.",
            code="network-outputs",
        )
    counts: torch.Tensor = output.reshape(labels.numel(), -1, output.shape[1]).sum(1)
    return counts


def _limit_weights(network: torch.nn.Module, limit: float) -> None:
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.weight.clamp_(-limit, limit)


class _Tally:
    """Sums over the batches of an epoch."""

    def __init__(self) -> None:
        self.n, self.loss, self.correct, self.synops = 0, 0.0, 0, 0.0
        self.spikes: dict[str, float] = {}
        self.neuron_steps: dict[str, int] = {}

    def add(self, loss: torch.Tensor, counts: torch.Tensor, labels: torch.Tensor, activity: Activity) -> None:
        self.n += labels.numel()
        self.loss += loss.item() * labels.numel()
        self.correct += int((counts.argmax(1) == labels).sum())
        self.synops += activity.synops.item()
        for name, spikes in activity.spikes.items():
            self.spikes[name] = self.spikes.get(name, 0.0) + spikes.item()
            self.neuron_steps[name] = self.neuron_steps.get(name, 0) + activity.neuron_steps[name]

    def means(self) -> dict[str, float | dict[str, float]]:
        return {
            "loss": self.loss / self.n,
            "accuracy": self.correct / self.n,
            "rates": {name: spikes / self.neuron_steps[name] for name, spikes in self.spikes.items()},
            "synops": self.synops / self.n,
        }


def _seed(seed: int, stream: int) -> None:
    """Seed torch's global generator for one epoch (stream 0: the initial weights)."""
    torch.manual_seed(int(np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]))


@contextmanager
def _deterministic(config: TrainConfig) -> Iterator[None]:
    """Seeded generator, deterministic algorithms and the configured threads inside; the caller's settings after."""
    threads = torch.get_num_threads()
    strict, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(config.threads)
        torch.use_deterministic_algorithms(True)
        _seed(config.seed, 0)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict, warn_only=warn_only)


def _save_checkpoint(
    run: Path, epoch: int, origin: Position, network: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(network, optimizer).items()}
    path = checkpoint_path(run, epoch)
    save_tensors(path, tensors, Position(epoch, origin.config_sha256, origin.data_sha256))
    for older in path.parent.glob("epoch-*.safetensors"):
        if older != path:
            older.unlink()


def _restore(path: Path, origin: Position, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load a checkpoint into network and optimizer; return the number of finished epochs."""
    tensors, position = load_tensors(path)
    for what, then, now in (
        ("settings", position.config_sha256, origin.config_sha256),
        ("data", position.data_sha256, origin.data_sha256),
    ):
        if then != now:
            raise TrainError(
                f"{path}: was written with other {what} than this run has.",
                remedy=f"resume with the same {what} (see {CONFIG} beside it), or train into another folder.",
                code="train-resume-mismatch",
            )
    _load_state(path, network, {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    restore_optimizer(
        network,
        optimizer,
        {k.removeprefix("optimizer."): v for k, v in tensors.items() if k.startswith("optimizer.")},
    )
    return position.epoch


def _load_state(path: Path, network: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise TrainError(
            f"{path}: its tensors do not fit the network ({' '.join(str(error).split())}).",
            remedy="use the network definition it was trained with.",
            code="weights-mismatch",
        ) from error


def _read_metrics(path: Path, epochs: int) -> list[dict[str, Any]]:
    """Records of the first ``epochs`` epochs, without a half-written last line or records after the checkpoint."""
    records: list[dict[str, Any]] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines()[:epochs]:
            records.append(json.loads(line))
        complete = [record["epoch"] for record in records] == list(range(1, epochs + 1))
    except (OSError, ValueError, KeyError, TypeError):
        complete = False
    if not complete:
        raise TrainError(
            f"{path}: does not hold the records of the {epochs} epochs that the checkpoint has.",
            remedy="restore the file, or train into another folder.",
            code="train-metrics",
        )
    return records


def _write_run_files(run: Path, config: TrainConfig, data: TrainData, origin: Position) -> None:
    save_config(run / CONFIG, config)
    write_json(
        run / RUN,
        {
            "seed": config.seed,
            "config_sha256": origin.config_sha256,
            "data_sha256": origin.data_sha256,
            "input_shape": list(data.train.sensor_size),
            "n_time_steps": data.n_time_steps,
            "dt_us": data.dt_us,
            "n_classes": data.n_classes,
            "recordings": {"train": len(data.train), "test": len(data.test)},
            "versions": {
                "neurodeploy": neurodeploy.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
            },
            "machine": platform.machine(),
        },
    )
    if isinstance(config.data, DigitsData) and not (run / TEST_EVENTS).exists():
        save_npz(run / TEST_EVENTS, data.test)
