"""Work runs in the same way wherever it runs, and errors come back with all they say."""

import os
import sys
from pathlib import Path

import pytest

from neurodeploy.errors import CheckFailed, ConfigError, MappingError
from neurodeploy.executor import InProcess, ProcessPool, executor


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def refuse(number: int) -> int:
    if number == 3:
        raise MappingError("no place.", remedy="split it.", code="placement", layers=("conv",), need="2", limit="1")
    return number


@pytest.mark.parametrize("one", [InProcess(), ProcessPool(2)], ids=["here", "processes"])
def test_results_come_in_order(one):
    results = list(one.map(square, range(20)))
    assert [result for result, _ in results] == [number * number for number in range(20)]
    assert ({process for _, process in results} == {os.getpid()}) == isinstance(one, InProcess)


@pytest.mark.parametrize("one", [InProcess(), ProcessPool(2)], ids=["here", "processes"])
def test_an_error_comes_back_whole(one):
    results = one.map(refuse, range(6))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(MappingError, match=r"no place\. Remedy: split it\.") as caught:
        next(results)
    assert (caught.value.code, caught.value.layers, caught.value.remedy) == ("placement", ("conv",), "split it.")


def test_the_iteration_can_be_left():
    results = ProcessPool(2).map(square, range(1000))
    assert next(results)[0] == 0
    results.close()


def test_names():
    assert isinstance(executor("processes", 1), InProcess)
    assert executor("processes", 3).workers == 3
    assert executor("processes").workers == os.cpu_count()
    with pytest.raises(ConfigError, match="no executor 'threads'"):
        executor("threads")
    with pytest.raises(ConfigError, match="0 workers"):
        executor("processes", 0)


FAKE_RAY = """
class exceptions:
    class RayTaskError(Exception):
        def __init__(self, cause):
            self.cause = cause


calls = []


def is_initialized():
    return False


def init(**options):
    calls.append(options)
    if options["address"] == "nowhere":
        raise ConnectionError("no cluster at nowhere")


def remote(function):
    class Task:
        def remote(item):
            return lambda: function(item)

    return Task


def get(task):
    try:
        return task()
    except Exception as error:
        raise exceptions.RayTaskError(error)


def cancel(task):
    calls.append(task)
"""


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module with the few names of Ray that are used; results are computed when they are fetched."""
    (tmp_path / "ray.py").write_text(FAKE_RAY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    yield __import__("ray")
    sys.modules.pop("ray", None)


def test_ray_gives_the_same(ray):
    assert [result for result, _ in executor("ray").map(square, range(5))] == [0, 1, 4, 9, 16]
    assert ray.calls[0]["address"] is None
    with pytest.raises(MappingError, match=r"no place"):
        list(executor("ray:10.0.0.1").map(refuse, range(6)))
    assert [call["address"] for call in ray.calls if isinstance(call, dict)] == [None, "10.0.0.1"]
    with pytest.raises(ConfigError, match="nowhere cannot be reached"):
        executor("ray:nowhere")


def test_ray_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="Ray is not installed"):
        executor("ray")


def test_every_error_survives_the_way_back():
    import pickle

    error = CheckFailed("too low.", remedy="train.", code="min-accuracy", result={"accuracy": 0.5})
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.result) == (CheckFailed, str(error), {"accuracy": 0.5})
