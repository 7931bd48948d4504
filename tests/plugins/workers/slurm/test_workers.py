"""Segments are jobs of Slurm: submitted once, heard through files, and found again by whoever goes on with the run."""

from __future__ import annotations

import time

import attrs
import pytest

from anarch_core.errors import ConfigError, MissingDependencyError, RunError
from anarch_core.running.runner import resume, run
from anarch_plugins.workers.slurm import gathering, queue, submission, workers
from anarch_plugins.workers.slurm.options import SlurmOptions


def until(hired, said=lambda: False, count: int = 1, seconds: float = 10):
    """Wait for outcomes, or for something else."""
    outcomes, end = [], time.monotonic() + seconds
    while len(outcomes) < count and not said():
        assert time.monotonic() < end
        outcomes += hired.wait()
    return outcomes


def asked(hired):
    """Wait until what Slurm says now has been heard."""
    before = hired.looks
    until(hired, lambda: hired.looks > before + 2)  # one was on its way, and the next one waits until this one is heard


def submitted(work, hired):
    """A run whose first segment Slurm has said to be waiting, and who does it."""
    given = work()
    made = hired(given)
    made.submit(given.jobs[0])
    asked(made)
    return given, made


class TestOpening:
    def test_a_machine_without_slurm_is_told_where_to_go(self, monkeypatch, tmp_path):
        pytest.importorskip("submitit")
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ConfigError, match="there is no sbatch on this machine's PATH; call anarch where jobs are submitted"):
            workers.SlurmWorkers(SlurmOptions())

    def test_the_extra_is_named_where_submitit_is_missing(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "submitit", None)
        with pytest.raises(MissingDependencyError, match=r"pip install 'anarch\[slurm\]'"):
            workers.SlurmWorkers(SlurmOptions())

    def test_a_partition_that_is_not_there_is_told_in_slurms_words_before_anything_is_loaded(self, slurm):
        slurm.say("refusal", "sbatch: error: invalid partition specified: nope\nallocation failure: Invalid partition name specified\n")
        with pytest.raises(ConfigError, match="takes no such job: Invalid partition name specified; see --slurm-partition"):
            workers.SlurmWorkers(SlurmOptions(partition="nope"))

    def test_nodes_that_are_busy_or_down_are_no_reason_to_refuse(self, slurm):
        slurm.say("refusal", "allocation failure: Required node not available (down, drained or reserved)\n")
        workers.SlurmWorkers(SlurmOptions())

    @pytest.mark.parametrize(
        ("device", "gres", "gpus", "wanted"),
        [
            ("cpu", "gpu:a100:4(S:0-1)", None, ("cpu", "")),
            ("auto", "(null)", None, ("cpu", "")),
            ("auto", "gpu:a100:4", None, ("cuda", "gpu:1")),
            ("auto", "gpu:a100:4", 0, ("cpu", "")),
            ("cuda", "(null)", None, ("cuda", "gpu:1")),
            ("cuda", "", 2, ("cuda", "gpu:2")),
        ],
    )
    def test_every_job_has_the_same_device_and_asks_for_it(self, slurm, work, hired, device, gres, gpus, wanted):
        slurm.say("gres", gres)
        made = hired(work().on(device), gpus=gpus)
        assert (made._gathering._config.device, made._gathering._parameters.get("gres", "")) == wanted

    @pytest.mark.parametrize("device", ["cuda:1", "cuda:0,cuda:2"])
    def test_a_certain_card_is_refused(self, slurm, work, hired, device):
        given = work().on(device)
        with pytest.raises(ConfigError, match=f"a --device is one of auto, cpu, cuda, not {device}"):
            hired(given)

    def test_a_name_that_slurm_reads_something_into_is_refused(self, slurm, work, tmp_path):
        given = work()
        store = attrs.evolve(given.crew.context.store, path=tmp_path / "50%j")
        made = workers.SlurmWorkers(SlurmOptions())
        with pytest.raises(ConfigError, match=r"Slurm reads a % in the name"):
            made.open(attrs.evolve(given.crew, context=attrs.evolve(given.crew.context, store=store)))


class TestJobs:
    def test_a_segment_is_trained_by_a_job_whose_events_are_heard_in_order(self, slurm, work, hired):
        given, made = submitted(work, hired)
        assert ("placed", "waits as Slurm job 17") in given.events
        slurm.train(given.run, "17", "n2")
        [outcome] = until(made)
        assert outcome.result is not None
        assert outcome.result == given.crew.context.store.segment(outcome.segment).finished()[0]
        kinds = [kind for kind, _ in given.events]
        assert given.events[1] == ("placed", "Slurm job 17 on n2")
        assert kinds[2:4] == ["started", "begun"]
        assert kinds.index("trained") < kinds.index("snapshot") or "snapshot" in kinds
        assert [value[0] for kind, value in given.events if kind == "trained"] == [4]
        made.close()
        assert not (given.run / "jobs").exists()

    def test_what_is_ready_together_is_one_array(self, slurm, work, hired):
        given = work(seeds=(0, 1, 2))
        made = hired(
            given, partition="gpu", account="me", qos="long", time="1-00:00:00", memory="8G", constraint="a100", setup=("module load x",)
        )
        for job in given.jobs[:3]:
            made.submit(job)
        made.wait()
        assert list(slurm.jobs()) == ["17_0", "17_1", "17_2"]
        script = slurm.script(17)
        for line in (
            "partition=gpu",
            "account=me",
            "qos=long",
            "time=1440",
            "mem=8G",
            "constraint=a100",
            "array=0-2%3",
            "requeue",
            "signal=USR2@90",
        ):
            assert f"#SBATCH --{line}\n" in script
        assert "module load x\nexport OMP_NUM_THREADS=1 MKL_NUM_THREADS=1\n" in script
        assert " -P -u -m submitit.core._submit " in script
        assert "--cpus-per-task=1 " in script
        assert "wckey" not in script

    def test_an_array_that_is_too_large_is_handed_over_in_parts(self, slurm, work, hired):
        given = work(seeds=(0, 1, 2, 3, 4))
        made = hired(given)
        slurm.say("limit", "2")
        for job in given.jobs[:5]:
            made.submit(job)
        made.wait()
        assert list(slurm.jobs()) == ["17_0", "17_1", "18_0", "18_1", "19"]
        assert len(list((given.run / "jobs").iterdir())) == 3

    def test_a_first_job_that_is_refused_ends_the_run_with_slurms_words(self, slurm, work, hired):
        given = work()
        made = hired(given)
        slurm.say("refusal", "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified\n")
        made.submit(given.jobs[0])
        with pytest.raises(ConfigError, match=r"Slurm did not take the job: Invalid account or account/partition combination specified"):
            made.wait()
        made.close()
        assert not (given.run / "jobs").exists()

    def test_later_ones_wait_until_slurm_takes_them(self, slurm, work, hired, monkeypatch):
        given = work()
        made = hired(given)
        made.submit(given.jobs[0])
        made.wait()
        slurm.say("refusal", "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy\n")
        made.submit(given.jobs[1])
        made.wait()
        made.wait()
        assert given.lines == ["Slurm takes no more jobs for now: Job violates accounting/QOS policy; it is asked again every minute"]
        (slurm.folder / "refusal").unlink()
        made._gathering._not_before = 0.0
        made.wait()
        assert list(slurm.jobs()) == ["17", "18"]

    @pytest.mark.parametrize(
        ("state", "words"),
        [
            ("NODE_FAIL", "Slurm job 17 on n1 ended as NODE_FAIL"),
            ("FAILED", "Slurm job 17 on n1 ended as FAILED: no more air"),
            ("OUT_OF_MEMORY", "Slurm job 17 on n1 ended as OUT_OF_MEMORY: ask for more with --slurm-memory"),
            ("CANCELLED", "Slurm job 17 on n1 ended as CANCELLED: no more air"),
            ("TIMEOUT", "Slurm job 17 on n1 ended as TIMEOUT: its state was not saved in time; ask for more with --slurm-time"),
        ],
    )
    def test_a_job_that_is_gone_says_nothing_about_its_segment(self, slurm, work, hired, state, words):
        given, made = submitted(work, hired)
        folder = next((given.run / "jobs").iterdir())
        (folder / "17_0_log.err").write_text("" if state == "NODE_FAIL" else "one thing\nno more air\n")
        slurm.put("17", state)
        [outcome] = until(made)
        assert (outcome.lost, outcome.error) == (True, words)
        made.close()
        assert folder.exists()

    def test_a_job_that_wrote_nothing_hints_at_the_file_system(self, slurm, work, hired):
        given, made = submitted(work, hired)
        slurm.put("17", "FAILED")
        [outcome] = until(made)
        assert outcome.error == f"Slurm job 17 on n1 ended as FAILED and wrote nothing, as where its node does not see {given.run}"

    def test_a_job_that_was_requeued_is_waited_for(self, slurm, work, hired):
        given = work()
        made = hired(given)
        made.submit(given.jobs[0])
        slurm_states = [("RUNNING", "None"), ("PENDING", "BeginTime"), ("RUNNING", "None")]
        for state, reason in slurm_states:
            asked(made)
            slurm.put("17", state, reason=reason)
            asked(made)
        assert ("placed", "waits as Slurm job 17 (BeginTime)") in given.events
        slurm.train(given.run, "17")
        assert until(made)[0].result is not None

    def test_a_job_that_nobody_but_the_user_can_let_go_on_is_told_once(self, slurm, work, hired):
        given = work()
        made = hired(given)
        made.submit(given.jobs[0])
        made.wait()
        slurm.put("17", "PENDING", node="", reason="launch failed requeued held")
        for _ in range(3):
            asked(made)
        assert given.lines == ["Slurm job 17 does not begin by itself: launch failed requeued held; see 'scontrol show job 17'"]

    def test_jobs_that_somebody_cancels_again_and_again_are_given_up(self, slurm, work, hired):
        given = work()
        made = hired(given)
        outcomes = []
        for job in ("17", "18", "19"):
            made.submit(given.jobs[0])
            asked(made)
            slurm.put(job, "CANCELLED")
            outcomes += until(made)
        assert [outcome.lost for outcome in outcomes] == [True, True, False]
        assert outcomes[2].error == "Slurm job 19 on n1 ended as CANCELLED, as 2 jobs before it"

    def test_a_controller_that_does_not_answer_is_no_end(self, slurm, work, hired):
        _, made = submitted(work, hired)
        slurm.say("down", "")
        slurm.put("17", "FAILED")
        asked(made)
        assert made.wait() == []
        (slurm.folder / "down").unlink()
        assert until(made)[0].lost

    def test_a_job_that_slurm_has_forgotten_counts_by_its_result(self, slurm, work, hired):
        given = work()
        made = hired(given)
        made.submit(given.jobs[0])
        made.submit(given.jobs[1])
        asked(made)
        slurm.train(given.run, "17_0")
        slurm.forget()
        first, second = until(made, count=2)
        assert first.result is not None
        assert (second.lost, second.error) == (True, "Slurm job 17_1 is no longer known to Slurm, and left no result")

    def test_what_a_component_raises_fails_its_segment(self, slurm, work, hired, monkeypatch):
        given = work()
        made = hired(given)
        made.submit(given.jobs[0])
        made.wait()
        monkeypatch.setattr("anarch_core.segment.execution.train_segment", lambda *_: 1 / 0)
        slurm.train(given.run, "17")
        [outcome] = until(made)
        assert (outcome.lost, outcome.error) == (False, "ZeroDivisionError: division by zero")
        assert "Traceback" in outcome.trace


class TestStopping:
    def test_jobs_that_wait_are_cancelled_and_those_that_run_save_their_state(self, slurm, work, hired):
        given = work(seeds=(0, 1))
        made = hired(given)
        made.submit(given.jobs[0])
        made.submit(given.jobs[1])
        asked(made)
        slurm.put("17_0", "RUNNING")
        made.stop()
        made.submit(given.jobs[2])
        outcomes = made.wait()
        assert [(outcome.segment, outcome.error) for outcome in outcomes] == [(given.jobs[2].segment.id, None)]
        asked(made)
        assert {"--quiet --state=PENDING 17_1", "--quiet --signal=TERM 17_0"} <= set(slurm.cancelled())
        slurm.put("17_0", "COMPLETED")
        slurm.put("17_1", "CANCELLED")
        assert [(outcome.lost, outcome.error, outcome.result) for outcome in until(made, count=2)] == [(False, None, None)] * 2

    def test_closing_cancels_whatever_is_left(self, slurm, work, hired):
        given = work()
        made = hired(given)
        made.submit(given.jobs[0])
        made.wait()
        made.close(at_once=True)
        made.close()
        assert slurm.cancelled() == ["--quiet 17"]


class TestGoingOn:
    def left(self, slurm, work, hired):
        """A run whose process was killed when two jobs were in the queue."""
        given = work(seeds=(0, 1))
        made = hired(given)
        made.submit(given.jobs[0])
        made.submit(given.jobs[1])
        made.wait()
        made._asker.shutdown()
        made._asker = None
        return given, [job.segment.id for job in given.jobs]

    def test_jobs_that_wait_or_run_are_not_submitted_again(self, slurm, work, hired):
        given, segments = self.left(slurm, work, hired)
        slurm.put("17_1", "RUNNING")
        made = hired(given)
        assert set(made.adopt(segments)) == set(segments[:2])
        assert given.lines == ["still in Slurm, of an earlier process of this run: jobs 17_0, 17_1"]
        slurm.train(given.run, "17_0")
        [outcome] = until(made)
        assert (outcome.segment, outcome.result is not None) == (segments[0], True)

    def test_what_the_attempt_under_way_told_is_heard_from_its_beginning(self, slurm, work, hired):
        given, segments = self.left(slurm, work, hired)
        slurm.train(given.run, "17_0")
        events = next(given.run.glob("jobs/*/0.jsonl"))
        told = events.read_bytes().splitlines(keepends=True)
        events.write_bytes(b"".join([*told[:6], b'["trained", [', b"\n", *told]))
        slurm.put("17_0", "RUNNING")
        made = hired(given)
        made.adopt(segments)
        until(made)
        kinds = [kind for kind, _ in given.events]
        assert kinds.count("started") == kinds.count("begun") == 1
        assert kinds[0] == "placed"

    def test_those_that_ended_meanwhile_count_by_what_they_left(self, slurm, work, hired):
        given, segments = self.left(slurm, work, hired)
        slurm.train(given.run, "17_0")
        slurm.put("17_1", "NODE_FAIL")
        assert hired(given).adopt(segments) == []
        assert not list((given.run / "jobs").iterdir())
        assert given.crew.context.store.segment(segments[0]).result_file.exists()

    def test_what_is_not_asked_for_any_more_is_left_alone_and_told(self, slurm, work, hired):
        given, segments = self.left(slurm, work, hired)
        assert hired(given).adopt(segments[1:]) == [segments[1]]
        assert given.lines[0] == "Slurm job 17_0 trains what the run does not ask for any more; 'scancel 17_0' ends it"

    def test_nothing_is_submitted_twice_because_slurm_does_not_answer(self, slurm, work, hired):
        given, segments = self.left(slurm, work, hired)
        slurm.say("down", "")
        with pytest.raises(RunError, match="Slurm does not answer, and an earlier process"):
            hired(given).adopt(segments)

    def test_a_job_whose_number_this_process_never_learnt_is_found_by_its_name(self, slurm, work, hired, monkeypatch):
        given = work()
        made = hired(given)
        real = submission.submit

        def killed(*arguments):
            real(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(gathering, "submit", killed)
        made.submit(given.jobs[0])
        with pytest.raises(KeyboardInterrupt):
            made.wait()
        made._asker.shutdown()
        made._asker = None
        assert hired(given).adopt([given.jobs[0].segment.id]) == [given.jobs[0].segment.id]

    def test_damaged_notes_are_passed_over(self, slurm, work, hired):
        given = work()
        for name, text in (("anarch-01234567", "{"), ("anarch-01234568", '{"a": 1}'), ("anything", "[]")):
            (given.run / "jobs" / name).mkdir(parents=True)
            (given.run / "jobs" / name / "segments.json").write_text(text)
        assert hired(given).adopt([]) == ()


def cluster_at_work(slurm, path, monkeypatch, *, killed=0):
    """Lets jobs be trained while the run waits, the first of them after some were killed; what was asked of Slurm is forgotten."""
    left = [killed]

    def sleep(_):
        waiting = [job for job, state in slurm.jobs().items() if state == "PENDING"]
        if waiting and left[0]:
            left[0] -= 1
            slurm.put(waiting[0], "FAILED")
        elif waiting:
            slurm.train(path, waiting[0])
        else:
            time.sleep(0.005)

    class Time:
        monotonic = staticmethod(time.monotonic)

    Time.sleep = staticmethod(sleep)
    monkeypatch.setattr(workers, "time", Time)


def weights(path):
    files = [*path.glob("segments/**/*.safetensors"), *path.glob("segments/*/history.jsonl")]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


WHOLE = {"epochs": 2, "branch_epochs": 1, "switch": "at:0,1", "optimizer_state": "carry", "probe": "delta"}


@pytest.fixture(scope="module")
def alone(small, tmp_path_factory):
    """What a run by itself ends in."""
    folder = tmp_path_factory.mktemp("alone")
    run(small(**WHOLE), out=folder, progress="silent")
    return weights(folder)


class TestRuns:
    @pytest.mark.parametrize("killed", [0, 2])
    def test_a_run_ends_in_the_same_bytes(self, slurm, small, tmp_path, monkeypatch, alone, killed):
        out = tmp_path / "with a space"
        cluster_at_work(slurm, out, monkeypatch, killed=killed)
        results = run(small(workers="slurm", jobs=None, **WHOLE), out=out, progress="silent")
        assert (results.status, results.failed) == ("finished", {})
        assert weights(out) == alone
        assert len(slurm.jobs()) == 6 + killed

    def test_a_segment_whose_jobs_are_lost_again_and_again_is_given_up_with_the_reason(self, slurm, small, tmp_path, monkeypatch):
        out = tmp_path / "run"
        cluster_at_work(slurm, out, monkeypatch, killed=3)
        results = run(small(workers="slurm", switch="at:0", epochs=1, branch_epochs=1, control="none"), out=out, progress="silent")
        assert results.status == "failed"
        assert [entry.error for entry in results.failed.values()] == [
            f"Slurm job 19 on n1 ended as FAILED and wrote nothing, as where its node does not see {out}, "
            "for the 3rd time without getting any further"
        ]

    def test_a_run_that_was_left_is_gone_on_with_by_its_jobs(self, slurm, small, tmp_path, monkeypatch, alone):
        out = tmp_path / "run"

        def killed(_):
            raise RuntimeError("killed")

        real = workers.SlurmWorkers.close
        with monkeypatch.context() as patch:
            patch.setattr(workers.SlurmWorkers, "close", lambda *_, **__: None)
            cluster_at_work(slurm, out, patch)
            patch.setattr(workers.time, "sleep", killed)
            with pytest.raises(Exception, match="killed"):
                run(small(workers="slurm", jobs=None, **WHOLE), out=out, progress="silent")
        assert workers.SlurmWorkers.close is real
        assert set(slurm.jobs().values()) == {"PENDING"}
        before = len(slurm.jobs())
        cluster_at_work(slurm, out, monkeypatch)
        assert resume(out, progress="silent").status == "finished"
        assert weights(out) == alone
        assert len(slurm.jobs()) == 6
        assert before < 6


def test_states_that_are_no_end_are_none():
    assert not {"PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "CONFIGURING", "STOPPED"} & queue.ENDED
