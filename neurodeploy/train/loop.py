"""The training loop: seeded, checkpointed, and the same bit for bit whether or not it was interrupted."""

import hashlib
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import neurodeploy
from neurodeploy.errors import ConfigError, TrainError
from neurodeploy.events import EventDataset, save_npz
from neurodeploy.files import canonical_json, read_json, write_json, write_text
from neurodeploy.nn import reset_states
from neurodeploy.train.activity import Activity
from neurodeploy.train.checkpoint import (
    Position,
    checkpoint_path,
    digest,
    latest_checkpoint,
    load_tensors,
    save_tensors,
    tensors_under,
)
from neurodeploy.train.config import DigitsData, TrainConfig, load_config, save_config
from neurodeploy.train.data import TrainData, batch_indices, epoch_order, load_batch, load_data
from neurodeploy.train.device import chosen_device, device_of, reproducible
from neurodeploy.train.gradient import flat_gradient, set_gradient, sum_in_order
from neurodeploy.train.local import LocalLearner
from neurodeploy.train.network import build_network
from neurodeploy.train.on_chip import OnChip
from neurodeploy.train.optimizer import (
    build_optimizer,
    check_finite,
    learning_rate,
    limit_weights,
    optimizer_tensors,
    restore_optimizer,
)
from neurodeploy.train.parallel import Processes, processes
from neurodeploy.train.penalty import activity_penalty, priced
from neurodeploy.train.progress import TrainProgress
from neurodeploy.train.tally import Tally, total

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
        network: the trained network, in evaluation mode and on the CPU; ``[B * T, C, H, W]`` to spikes
            ``[B * T, outputs]``.
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

    Started by ``torchrun``, its processes share each batch (``config.shards``) and this function is called in all of
    them; the first one writes and prints. The result is the same, bit for bit, for any number of processes.

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
    with processes() as team:
        return _train(config, Path(out_dir), resume, quiet, team)


def _train(config: TrainConfig, run: Path, resume: bool, quiet: bool, team: Processes) -> TrainResult:
    with team.together():
        checkpoint = _check_folder(run, resume)
        config = _with_shards(config, run if resume else None, team)
    device = chosen_device(config.device)
    with _deterministic(config, device), TrainProgress(config.epochs, quiet=quiet or not team.first) as progress:
        progress.say("preparing the recordings")
        with team.together():
            data = load_data(config.data)
            network = build_network(
                config, input_shape=data.train.sensor_size, n_time_steps=data.n_time_steps, n_classes=data.n_classes
            ).to(device)
            _check_shards(config, network)
            optimizer = build_optimizer(network, config.optimizer)
            local = None if config.local is None else LocalLearner(config, config.local, network, data)
            origin = Position(0, config.sha256(), data.digests())
            start, metrics = 0, []
            if checkpoint is not None:
                start = _restore(checkpoint, origin, network, optimizer, local)
                metrics = _read_metrics(run / METRICS, start)
            elif config.init is not None:
                _load_first_weights(Path(config.init), network)
            chip = _chip(config, network, data)
        team.agree("settings, recordings and checkpoint", [asdict(origin), start])
        with team.together():
            if team.first:
                _write_run_files(run, config, data, origin, fresh=checkpoint is None)
                write_text(run / METRICS, "".join(canonical_json(record) + "\n" for record in metrics))
        progress.say(
            f"{len(data.train)} train and {len(data.test)} test recordings, {data.n_time_steps} steps of "
            f"{data.dt_us / 1000:g} ms"
            + (f", {team.size} processes" if team.size > 1 else "")
            + (f"; continuing after epoch {start}" if start else "")
        )
        for epoch in range(start, config.epochs):
            began = time.perf_counter()
            on_chip = chip is not None and epoch >= _first_epoch_on_chip(config)
            forward = chip if chip is not None and on_chip else network
            record: dict[str, Any] = {"epoch": epoch + 1}
            if chip is not None:
                record["on_chip"] = on_chip
            if local is None:
                tally, warnings = _train_epoch(config, data, forward, network, optimizer, epoch, progress, team)
                record |= tally.means()
            else:
                _seed(config.seed, epoch + 1)
                record |= local.train_epoch(epoch, progress)
                warnings = []
            record |= {f"test_{k}": v for k, v in evaluate(forward, data, data.test, config, team).items()}
            if warnings:
                record["warnings"] = warnings
            record["seconds"] = round(time.perf_counter() - began, 3)
            new = set(warnings) - set(metrics[-1].get("warnings", ()) if metrics else ())
            metrics.append(record)
            finished = epoch + 1
            if team.size > 1:
                team.agree(f"weights after epoch {finished}", digest(network.state_dict()))
            with team.together():
                if team.first:
                    with (run / METRICS).open("a", encoding="utf-8") as file:
                        file.write(canonical_json(record) + "\n")
                    if finished % config.checkpoint_every == 0 or finished == config.epochs:
                        _save_checkpoint(run, finished, origin, network, optimizer, local)
            progress.say(
                f"epoch {finished}/{config.epochs}  loss {record['loss']:.4f}  train {record['accuracy']:.2%}  "
                f"test {record['test_accuracy']:.2%}  {record['seconds']:.1f} s" + ("  on chip" if on_chip else "")
            )
            for warning in warnings:
                if warning in new:
                    progress.say(f"warning: {warning}")
        with team.together():
            if team.first:
                final = Position(config.epochs, origin.config_sha256, origin.data_sha256)
                save_tensors(run / MODEL, network.state_dict(), final)
    return TrainResult(run, run / MODEL, network.eval().cpu(), data, metrics)


def evaluate(
    network: torch.nn.Module, data: TrainData, which: EventDataset, config: TrainConfig, team: Processes | None = None
) -> dict[str, Any]:
    """Loss, accuracy, rates (spikes per neuron and step) and synaptic operations per recording, without learning.

    Args:
        network: the network, or an ``OnChip`` around it: then its integers are evaluated.
        data: the grid.
        which: the recordings.
        config: batch size and gain of the output.
        team: the processes that share the batches; the result does not depend on their number.
    """
    team = team or Processes()
    network.eval()
    own: list[dict[str, Any]] = []
    with team.together(), torch.no_grad(), Activity(_watched(network)) as activity:
        for chosen in batch_indices(np.arange(len(which)), config.batch_size)[team.rank :: team.size]:
            x, labels = load_batch(data, which, chosen, device_of(network))
            counts = _output_counts(network, activity, x, labels)
            tally = Tally()
            tally.add(F.cross_entropy(config.loss.gain * counts, labels), counts, labels, activity)
            own.append(asdict(tally))
    by_rank = team.gather(own)
    batches = [by_rank[i % team.size][i // team.size] for i in range(sum(map(len, by_rank)))]
    return total(Tally(**batch) for batch in batches).means()


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
    forward: torch.nn.Module,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    progress: TrainProgress,
    team: Processes,
) -> tuple[Tally, list[str]]:
    """One epoch of ``network``'s weights through ``forward``; what happened, and what to warn of."""
    forward.train()
    _seed(config.seed, epoch + 1)
    batches = batch_indices(epoch_order(len(data.train), config.seed, epoch), config.batch_size)
    progress.begin_epoch(epoch + 1, len(batches))
    shards = config.shards or 1
    own = range(team.rank * shards // team.size, (team.rank + 1) * shards // team.size)
    tallies = {shard: Tally() for shard in own}
    with Activity(network, differentiable=priced(config.loss)) as activity:
        for i, chosen in enumerate(batches):
            lr = learning_rate(config.optimizer, epoch * len(batches) + i, config.epochs * len(batches))
            for group in optimizer.param_groups:
                group["lr"] = lr
            parts = np.array_split(chosen, shards)
            gradients = []
            with team.together():
                for shard in own:
                    if shards > 1:  # random numbers must not depend on which process computes the part
                        _seed(config.seed, epoch + 1, i, shard)
                    optimizer.zero_grad()
                    if parts[shard].size:
                        x, labels = load_batch(data, data.train, parts[shard], device_of(network))
                        counts = _output_counts(forward, activity, x, labels)
                        loss = F.cross_entropy(config.loss.gain * counts, labels)
                        price = activity_penalty(config.loss, activity, data.n_time_steps * data.dt_us)
                        objective = loss + price.to(loss.dtype) if priced(config.loss) else loss
                        if not bool(torch.isfinite(objective)):
                            raise TrainError(
                                f"the loss is {objective.item()} in epoch {epoch + 1}, batch {i + 1}.",
                                remedy="lower optimizer.lr, or set optimizer.clip_grad_norm.",
                                code="train-diverged",
                            )
                        share = objective * (labels.numel() / chosen.size)
                        share.backward()  # type: ignore[no-untyped-call]
                        tallies[shard].add(loss.detach(), counts.detach(), labels, activity)
                    if shards > 1:
                        gradients.append(flat_gradient(network))
            if shards > 1:
                set_gradient(network, sum_in_order(team.gather_rows(torch.stack(gradients))))
            if config.optimizer.clip_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), config.optimizer.clip_grad_norm)
            optimizer.step()
            if config.max_weight is not None:
                limit_weights(network, config.max_weight)
            progress.batch()
        by_rank = team.gather([asdict(tallies[shard]) for shard in own])
        tally = total(Tally(**values) for part in by_rank for values in part)
        guards = [*tally.guards(), *activity.weight_guards()]
    with team.together():
        check_finite(network, epoch)
    return tally, [str(guard) for guard in guards]


def _output_counts(network: torch.nn.Module, activity: Activity, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Spikes of each output over the recording, ``[B, outputs]``."""
    reset_states(network)
    activity.begin(labels.numel())
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


def _seed(seed: int, *stream: int) -> None:
    """Seed torch's global generator: stream 0 for the initial weights, then (epoch), or (epoch, batch, shard)."""
    torch.manual_seed(int(np.random.SeedSequence([seed, *stream]).generate_state(1, np.uint64)[0]))


@contextmanager
def _deterministic(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Seeded generator, deterministic algorithms and the configured threads inside; the caller's settings after."""
    threads = torch.get_num_threads()
    with reproducible(device):
        torch.set_num_threads(config.threads)
        _seed(config.seed, 0)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _save_checkpoint(
    run: Path,
    epoch: int,
    origin: Position,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    local: LocalLearner | None,
) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(network, optimizer).items()}
    if local is not None:
        tensors |= {f"local.{name}": tensor for name, tensor in local.tensors().items()}
    path = checkpoint_path(run, epoch)
    save_tensors(path, tensors, Position(epoch, origin.config_sha256, origin.data_sha256))
    for older in path.parent.glob("epoch-*.safetensors"):
        if older != path:
            older.unlink()


def _check_folder(run: Path, resume: bool) -> Path | None:
    """The checkpoint to go on from, or None for a new run."""
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
    return checkpoint


def _with_shards(config: TrainConfig, resumed: Path | None, team: Processes) -> TrainConfig:
    """The settings with the shards that a run of several processes, or the run that is resumed, has."""
    if config.shards is None and resumed is not None and (resumed / CONFIG).is_file():
        config = config.model_copy(update={"shards": load_config(resumed / CONFIG).shards})
    elif config.shards is None and team.size > 1:
        config = config.model_copy(update={"shards": team.size})
    if config.local is not None and team.size > 1:
        raise ConfigError(
            f"local: blocks and segments are trained by one process, and there are {team.size}.",
            remedy="start one process, or train without local.",
            code="local-processes",
        )
    if (config.shards or 1) % team.size:
        raise ConfigError(
            f"shards: {config.shards or 1} parts of a batch cannot be shared equally by {team.size} processes.",
            remedy=f"set shards to a multiple of {team.size}, or start a number of processes that divides it.",
            code="shards",
        )
    return config


def _check_shards(config: TrainConfig, network: torch.nn.Module) -> None:
    for name, module in network.named_modules():
        if (config.shards or 1) > 1 and isinstance(module, torch.nn.modules.batchnorm._NormBase):
            raise ConfigError(
                f"shards: {name} ({type(module).__name__}) computes statistics of a whole batch.",
                remedy="train with one process and without shards, or without batch normalization.",
                code="shards",
            )


def _chip(config: TrainConfig, network: torch.nn.Module, data: TrainData) -> OnChip | None:
    """The network on the integers of the configured chip; None where none is configured."""
    if config.quantize_aware is None:
        return None
    sample = torch.zeros(data.n_time_steps, *data.train.sensor_size)
    return OnChip(network, sample, target=config.quantize_aware.target)


def _first_epoch_on_chip(config: TrainConfig) -> int:
    return config.epochs if config.quantize_aware is None else config.quantize_aware.from_epoch


def _watched(network: torch.nn.Module) -> torch.nn.Module:
    """The module whose layers are named as the user named them."""
    return network.network if isinstance(network, OnChip) else network


def _load_first_weights(path: Path, network: torch.nn.Module) -> None:
    path = _weights_file(path)
    tensors, _ = load_tensors(path)
    _load_state(path, network, tensors)


def _weights_file(path: Path) -> Path:
    """The file of a run folder, or the file itself."""
    return path / MODEL if path.is_dir() else path


def _restore(
    path: Path,
    origin: Position,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    local: LocalLearner | None,
) -> int:
    """Load a checkpoint into network, optimizer and blocks; return the number of finished epochs."""
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
    _load_state(path, network, tensors_under("model.", tensors))
    restore_optimizer(network, optimizer, tensors_under("optimizer.", tensors))
    if local is not None:
        local.restore(tensors_under("local.", tensors))
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


def _write_run_files(run: Path, config: TrainConfig, data: TrainData, origin: Position, *, fresh: bool) -> None:
    save_config(run / CONFIG, config)
    init: dict[str, Any] = {}
    if config.init is not None and fresh:
        init["init_sha256"] = hashlib.sha256(_weights_file(Path(config.init)).read_bytes()).hexdigest()
    elif config.init is not None:
        init["init_sha256"] = read_json(run / RUN).get("init_sha256")
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
        }
        | init,
    )
    if isinstance(config.data, DigitsData) and not (run / TEST_EVENTS).exists():
        save_npz(run / TEST_EVENTS, data.test)
