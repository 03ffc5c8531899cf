"""What a follower does between trainings: it hears what comes next, and ends in one line where its leader does."""

import time
from threading import Thread

import pytest
from torch.distributed import HashStore

from tutelage.pipeline import processes
from tutelage.pipeline.recipe import Recipe
from tutelage.records import InputError

RECIPE = Recipe.model_validate({"name": "r"})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_LOOK_S", 0.002)
    monkeypatch.setattr(processes, "_BEAT_S", 0.005)


def test_a_follower_sleeps_until_the_leader_says_what_comes_next(quick: None) -> None:
    store, said = HashStore(), []
    follower = Thread(target=lambda: said.append(processes._comes_next(store, 0)))
    leader = processes._Leader(store)
    follower.start()
    while int(store.get(processes._BEAT) if store.check([processes._BEAT]) else 0) < 20:
        time.sleep(0.002)
    assert not said
    leader.say(b"train")
    follower.join()
    assert said == [b"train"]
    leader.say(b"done")
    assert processes._comes_next(store, 1) == b"done"
    leader.stop(0.0)


def test_a_follower_ends_where_the_leader_is_silent_or_has_failed(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_SILENCE_S", 0.02)
    store = HashStore()
    store.set(processes._BEAT, "7")  # its last sign of life
    with pytest.raises(InputError, match=r"gave no sign of life for 0.02 s"):
        processes._comes_next(store, 0)
    store.set(processes._NEXT.format(0), b"failed")
    with pytest.raises(InputError, match="has failed: look at its message"):
        processes._comes_next(store, 0)


def test_a_leader_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for store, error in ((HashStore(), InputError("lr")), (HashStore(), RuntimeError("[gloo/pair.cc] closed by peer"))):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setattr(processes, "_join", lambda recipe, store=store: store)
        with pytest.raises(InputError) as caught, processes.leading(RECIPE):
            raise error
        assert "\n" not in str(caught.value)
        assert store.get(processes._NEXT.format(0)) == b"failed"


def test_other_errors_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="shape mismatch"), processes.one_line_for_a_lost_process():
        raise RuntimeError("shape mismatch")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        # What `accelerate launch --cpu --num_processes 2` sets for the one process that it starts.
        (
            {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500"},
            "one process where --num_processes names several",
        ),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun started 2 processes"),
    ],
)
def test_a_process_that_was_to_be_one_of_several_does_not_go_on_alone(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"{message}.*torchrun --nproc_per_node"), processes.leading(RECIPE):
        pass
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with processes.leading(RECIPE):
        pass
