from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from search_toys import (
    broken_factory,
    environment_factory,
    numbered_run,
    open_toy,
    toy_factory,
    toy_run,
)

from autocomp.errors import UserError
from autocomp.policy import Policy
from autocomp.study import watchdog
from autocomp.study.loop import search_loop
from autocomp.study.ray_runner import RayRunner
from autocomp.study.runners import InProcessRunner

FATAL = {7: 1, 8: 2}
LONGEST_CLEAN_UP_S = 20.0

DRIVER = """
import sys
from pathlib import Path
from search_toys import open_toy, stalling_factory
from autocomp.study.loop import search_loop
from autocomp.study.ray_runner import RayRunner

study = open_toy(Path(sys.argv[1]), sampler="random", trials=6)
runner = RayRunner(stalling_factory, workers=2)
print(runner.folder, flush=True)
search_loop(study, runner, 6)
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def runner(workspace):
    (workspace / "notes").mkdir()
    factory = partial(numbered_run, str(workspace / "notes"), FATAL)
    made = RayRunner(factory, workers=2, threads=1, timeout_s=2.0, directory=workspace)
    yield made
    folder = made.folder
    assert folder is not None
    made.close()
    made.close()
    assert not Path(folder).exists()


def test_an_address_where_nobody_listens_is_refused_at_once():
    # before `runner` starts Ray in this process, which every runner would then use
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UserError, match=r"address: must be a running Ray cluster"):
        RayRunner(toy_factory, address=f"127.0.0.1:{port}")


def results_of(runner, *numbers):
    for number in numbers:
        runner.submit(number, Policy())
    return {one.number: one for one in (runner.next_result() for _ in numbers)}


def test_two_trials_run_in_two_processes_that_are_kept(runner, capfd):
    first, second = results_of(runner, 0, 1), results_of(runner, 2, 3)
    assert {one.status for one in (first | second).values()} == {"complete"}
    pids = [{one.metrics["pid"] for one in some.values()} for some in (first, second)]
    assert pids[0] == pids[1]
    assert len(pids[0]) == 2
    assert os.getpid() not in pids[0]
    assert all(one.metrics["threads"] == 1 for one in first.values())
    assert capfd.readouterr() == ("", "")


def test_an_exception_in_a_worker_is_a_failed_trial_with_a_log(runner, workspace):
    result = results_of(runner, 100)[100]
    assert (result.status, result.reason) == ("failed", "RuntimeError: two lines")
    assert "Traceback" in (workspace / "trials" / "00100" / "log.txt").read_text()


def test_a_trial_whose_worker_dies_is_run_once_more(runner, workspace, capfd):
    results = results_of(runner, 7, 9)
    assert results[7].status == results[9].status == "complete"
    assert len(list((workspace / "notes").glob("7-*"))) == 2
    assert capfd.readouterr() == ("", "")


def test_a_trial_that_kills_its_workers_is_failed(runner, workspace):
    result = results_of(runner, 8)[8]
    assert result.status == "failed"
    assert result.reason.startswith("worker died twice: ")
    assert len(list((workspace / "notes").glob("8-*"))) == 2
    assert results_of(runner, 10)[10].status == "complete"


def test_a_trial_that_takes_too_long_is_stopped(runner):
    results = results_of(runner, 200, 11)
    assert results[11].status == "complete"
    assert results[200].status == "stopped"
    assert results[200].reason == "took longer than timeout_s = 2"


def test_what_the_factory_raises_reaches_the_caller(runner):
    beside = RayRunner(broken_factory)  # uses the Ray that runs already, and leaves it running
    beside.submit(0, Policy())
    with pytest.raises(ValueError, match="the data is missing"):
        beside.next_result()
    beside.close()
    assert results_of(runner, 12)[12].status == "complete"


def test_our_environment_reaches_a_running_cluster(runner, monkeypatch):
    monkeypatch.setenv("AUTOCOMP_TOY", "0.25")
    beside = RayRunner(environment_factory)
    result = results_of(beside, 0)[0]
    beside.close()
    assert result.metrics == {"cider": 0.25}, result.reason


@pytest.mark.parametrize(("threads", "capacity"), [(1, 2), (2, 1), (3, 1)])
def test_a_cluster_gets_as_many_workers_as_it_has_cores_for(runner, threads, capacity):
    beside = RayRunner(toy_factory, workers=None, threads=threads)
    assert beside.capacity == capacity
    beside.close()


def is_alive(process):
    """Whether it runs; a zombie, which only waits for its new parent to notice, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition, limit_s):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_killed_driver_leaves_no_process_and_its_trials_go_on(tmp_path):
    study_folder = tmp_path / "study"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", DRIVER, str(study_folder)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    with driver:
        ray_folder = Path(driver.stdout.readline().strip())
        running = study_folder / "trials" / "00003" / "policy.yaml"
        wait_until(running.exists, 60)
        time.sleep(0.2)
        children = psutil.Process(driver.pid).children(recursive=True)
        driver.kill()
    assert len(children) > 4
    wait_until(lambda: not any(map(is_alive, children)), LONGEST_CLEAN_UP_S)
    assert not ray_folder.exists()

    in_flight = {number: (study_folder / f"trials/0000{number}/policy.yaml") for number in (2, 3)}
    texts = {number: path.read_text() for number, path in in_flight.items()}
    resumed = open_toy(study_folder, sampler="random", trials=6)
    search_loop(resumed, InProcessRunner(toy_run), 6)
    assert sorted(resumed.results) == list(range(6))
    assert {number: resumed.policies[number].to_yaml() for number in texts} == texts


def test_a_search_in_workers_is_complete(runner, tmp_path):
    study = open_toy(tmp_path, sampler="tpe", trials=12)
    workers = RayRunner(toy_factory, workers=2, directory=tmp_path)
    search_loop(study, workers, 12)
    assert sorted(study.results) == list(range(12))
    assert len({policy.id for policy in study.policies.values()}) == 12
    assert {one.status for one in study.results.values()} == {"complete"}


def test_the_watchdog_spares_a_process_that_took_over_a_number(tmp_path):
    own = psutil.Process()
    watchdog._clean_up(str(tmp_path), [f"{own.pid}:{own.create_time() - 60}"])
    assert not tmp_path.exists()


@pytest.mark.parametrize(
    ("script", "is_ended"),
    [("ray/_private/workers/default_worker.py", True), ("editor.py", False)],
    ids=["a worker of Ray", "the user's own"],
)
def test_the_watchdog_ends_what_ray_started_for_the_folder(tmp_path, script, is_ended):
    code = tmp_path / "site-packages" / script
    code.parent.mkdir(parents=True)
    code.write_text("import time; time.sleep(600)")
    session = tmp_path / "session"
    session.mkdir()
    process = subprocess.Popen([sys.executable, str(code), f"--session={session}/s"])
    try:
        watchdog._clean_up(str(session), [])
        if is_ended:
            assert process.wait(10) != 0
        else:
            assert process.poll() is None
    finally:
        process.kill()
        process.wait()


RAY_DIES = """
import psutil, sys
from search_toys import stalling_factory
from autocomp.errors import StudyError
from autocomp.policy import Policy
from autocomp.study.ray_runner import RayRunner

runner = RayRunner(stalling_factory, workers=1)
runner.submit(5, Policy())
for process in psutil.Process().children(recursive=True):
    if process.name() == "raylet":
        process.kill()
try:
    runner.next_result()
except StudyError as error:
    print(error)
"""


def test_a_search_does_not_wait_for_ever_for_a_dead_ray():
    done = subprocess.run(
        [sys.executable, "-c", RAY_DIES],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "the same command resumes" in done.stdout + done.stderr
