"""``--allow-recurrence``: asked for by name, and said again in what the verbs print."""

from neurodeploy.graph.file import save_graph
from tests.targets.test_recurrent_networks import INHIBITION


def test_a_loop_has_to_be_allowed(tmp_path, cli):
    model = tmp_path / "model.onnx"
    save_graph(INHIBITION, model)
    for verb in ("check", "quantize", "map", "compile"):
        folder = () if verb == "check" else ("-o", tmp_path / verb)
        refused = cli(verb, model, *folder)
        assert refused.code != 0
        assert "allow-recurrence" in refused.out + refused.err
        assert cli(verb, model, *folder, "--allow-recurrence").code == 0
    fits = cli("targets", "fit", model, "-t", "speck2f", "--allow-recurrence", "--json").json["targets"]
    assert [one["fits"] for one in fits] == [True]
    notes = cli("compile", model, "-o", tmp_path / "again", "--allow-recurrence", "--json").json["notes"]
    assert sum("deadlock" in note for note in notes) == 1
