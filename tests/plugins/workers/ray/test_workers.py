"""Workers in Ray: what is refused before anything is loaded, and a run by a Ray of its own."""

import hashlib
import importlib.util
import json
import socket
import tempfile
from pathlib import Path

import attrs
import pytest

from anarch_core.errors import ConfigError, MissingDependencyError, OptionError
from anarch_core.plugin.registry import get_registry
from anarch_core.running.runner import run
from anarch_plugins.workers.ray.workers import RayWorkers, _gpus

INSTALLED = importlib.util.find_spec("ray") is not None


def made(**options):
    return get_registry().create("workers", "ray", options)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'anarch\[ray\]'"):
        made()


@pytest.fixture
def _installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)


@pytest.mark.parametrize("address", ["", "head", "head:", "head:x", "http://head:6379", "ray://head:10001", "a b:1", 6379])
def test_an_address_is_local_auto_or_a_host_and_a_port(address):
    with pytest.raises(OptionError, match="address"):
        made(address=address)


@pytest.mark.parametrize("gpus", [-1, 1.5, "two"])
def test_a_worker_uses_one_gpu_or_a_part_of_it(gpus):
    with pytest.raises(OptionError, match="gpus"):
        made(gpus=gpus)


@pytest.mark.usefixtures("_installed")
def test_where_nobody_answers_there_is_no_cluster():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConfigError, match=f"nobody is at {address} .*Connection refused.*ray start --head"):
        made(address=address)
    with pytest.raises(ConfigError, match=r"nobody is at 127\.0\.0\.1:99999"):
        made(address="127.0.0.1:99999")


@pytest.mark.parametrize(
    ("device", "asked", "gpus"),
    [("auto", None, None), ("auto", 0.5, 0.5), ("auto", 0, 0), ("cpu", None, 0), ("cpu", 0, 0), ("cuda", None, 1), ("cuda", 0.25, 0.25)],
)
def test_the_gpus_of_a_worker_follow_the_device(device, asked, gpus):
    assert _gpus(device, asked) == gpus


@pytest.mark.parametrize(("device", "asked"), [("cpu", 1), ("cuda", 0), ("cuda:1", None)])
def test_a_device_that_the_gpus_of_a_worker_contradict_is_refused(device, asked):
    with pytest.raises(ConfigError, match=device):
        _gpus(device, asked)


@pytest.mark.usefixtures("_installed")
def test_workers_that_were_never_opened_can_be_closed():
    workers = RayWorkers()
    assert workers.capacity == 0
    workers.close()
    workers.close(at_once=True)


def weights(folder):
    """Networks and histories by path; and the results, without what differs from run to run."""
    files = [*folder.glob("segments/*/*.safetensors"), *folder.glob("segments/*/*/*.safetensors"), *folder.glob("segments/*/history.jsonl")]
    results = json.loads((folder / "results.json").read_text())
    segments = [{name: value for name, value in segment.items() if name not in ("seconds", "machines")} for segment in results["segments"]]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}, segments


@pytest.fixture
def temporary():
    """A place for temporary files short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs ray")
def test_a_ray_of_its_own_trains_to_the_same_bytes_and_leaves_nothing(small, python, tmp_path, monkeypatch, temporary):
    config = small(control="continued", switch="at:2", optimizer_state="carry", probe="delta", observe="jsonl")
    run(attrs.evolve(config, observe=()), out=tmp_path / "here", progress="silent")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "run.toml").write_text((tmp_path / "here" / "config.toml").read_text())
    arguments = ("run", "--config", tmp_path / "run.toml", "--workers", "ray", "--jobs", "2", "--observe", "jsonl")
    ended = python.anarch(*arguments, "--json", "--out", tmp_path / "there", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["status"] == "finished"
    assert weights(tmp_path / "there") == weights(tmp_path / "here")
    events = [json.loads(line) for line in (tmp_path / "there" / "events.jsonl").read_text().splitlines()]
    assert {event["worker"] for event in events if event.get("worker")}
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "home" / ".ray").exists()
