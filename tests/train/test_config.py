import datetime
from pathlib import Path

import pytest
import yaml

from neurodeploy.errors import ConfigError
from neurodeploy.train.config import TEMPLATES, load_config, parse_config, save_config

MINIMAL = {
    "data": {"source": "digits"},
    "network": {"layers": [{"type": "linear", "features": 10}, {"type": "iaf"}]},
}


def changed(path: str, value):
    content = yaml.safe_load(yaml.safe_dump(MINIMAL))
    place = content
    *parents, last = path.split(".")
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    place[last] = value
    return content


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.yaml")), ids=lambda path: path.name)
def test_templates_are_valid_and_survive_a_round_trip(template, tmp_path):
    config = load_config(template)
    save_config(tmp_path / "resolved.yaml", config)
    again = load_config(tmp_path / "resolved.yaml")
    assert again == config
    assert again.sha256() == config.sha256()


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("epochs", 0, "epochs"),
        ("learning_rate", 0.1, "learning_rate"),
        ("optimizer.lr", -1.0, "optimizer.lr"),
        ("optimizer.lr", "fast", "optimizer.lr"),
        ("data.source", "camera", "data"),
        ("data.dt_us", 0.5, "data.digits.dt_us"),
        ("network.layers.0.features", 0, "network.layers.0.linear.features"),
        ("network.layers.0.type", "lstm", "network.layers.0"),
        ("network.layers.1.v_min", 0, "network.layers.1.iaf.v_min"),
        ("network.layers.1.treshold", 1.0, "network.layers.1.iaf.treshold"),
        ("network.factory", "a:b", "network"),
        ("network.factory", "not a path", "network.factory"),
        ("loss.gain", float("nan"), "loss.gain"),
    ],
)
def test_errors_name_the_field(path, value, named):
    with pytest.raises(ConfigError) as error:
        parse_config(changed(path, value), source="my.yaml")
    assert error.value.code == "config-field"
    assert f"{named}:" in str(error.value)
    assert "my.yaml" in str(error.value)


def test_missing_and_malformed_files(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("data: [unclosed")
    with pytest.raises(ConfigError, match=r"bad\.yaml: is not YAML"):
        load_config(path)
    path.write_text("- a list")
    with pytest.raises(ConfigError, match="not a mapping"):
        load_config(path)
    path.write_text("")
    with pytest.raises(ConfigError, match="not a mapping"):
        load_config(path)


@pytest.mark.parametrize("value", [b"\xff", datetime.date(2020, 1, 1), {1: 2}, float("nan"), {"a": [float("inf")]}])
def test_factory_arguments_are_what_the_resolved_file_can_hold(value):
    """Anything else would reach the factory changed when the network is built again."""
    network = {"factory": "a:b", "arguments": {"value": value}}
    with pytest.raises(ConfigError, match=r"network") as error:
        parse_config(MINIMAL | {"network": network})
    assert error.value.code == "config-field"
    plain = {"value": [1, 2.5, "a", None, {"b": True}]}
    assert parse_config(MINIMAL | {"network": network | {"arguments": plain}}).network.arguments == plain


def test_endless_nesting_is_not_a_traceback(tmp_path):
    path = tmp_path / "deep.yaml"
    path.write_text("a: " + "[" * 3000 + "]" * 3000)
    with pytest.raises(ConfigError, match=r"deep\.yaml: is not YAML"):
        load_config(path)


def test_overrides_use_dotted_names(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    config = load_config(path, {"epochs": 3, "optimizer.lr": 0.5, "data.n_train": 7})
    assert (config.epochs, config.optimizer.lr, config.data.n_train) == (3, 0.5, 7)
    assert config.sha256() != load_config(path).sha256()
    with pytest.raises(ConfigError, match="epohcs"):
        load_config(path, {"epohcs": 3})
    with pytest.raises(ConfigError, match="not a group"):
        load_config(path, {"epochs.a": 3, "epochs": 3} | {"data.source.x": 1})


def test_data_paths_start_at_the_file(tmp_path):
    path = tmp_path / "sub" / "c.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(MINIMAL | {"data": {"source": "npz", "train": "a.npz", "test": "../b.npz"}}))
    config = load_config(path)
    assert Path(config.data.train) == tmp_path / "sub" / "a.npz"
    assert Path(config.data.test).resolve() == tmp_path / "b.npz"
