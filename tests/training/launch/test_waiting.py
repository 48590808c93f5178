"""What a run waits for, in words, and told apart from what it has reserved itself."""

from __future__ import annotations

import pytest

from crossdim.training.launch import waiting
from crossdim.training.launch.waiting import Wait, describe_needs, find_wait


@pytest.mark.parametrize(
    ("least", "most", "unit", "words"),
    [
        (1, 1, "GPU", "1 worker with 1 GPU"),
        (1, 1, "CPU", "1 worker with 1 CPU"),
        (2, 2, "GPU", "2 workers with 1 GPU each"),
        (1, 4, "CPU", "1 to 4 workers with 1 CPU each"),
    ],
)
def test_needs_in_words(least: int, most: int, unit: str, words: str) -> None:
    assert describe_needs(least, most, unit) == words


@pytest.mark.parametrize(
    ("least", "most", "free", "sentence"),
    [
        (2, 2, 0, "needs 2 workers with 1 GPU each; the cluster has 0 free of 4"),
        (2, 16, 1, "needs at least 2 workers with 1 GPU each; the cluster has 1 free of 4"),
        (1, 16, 0, "needs at least 1 worker with 1 GPU; the cluster has 0 free of 4"),
        (1, 1, 3, "needs 1 worker with 1 GPU; the cluster has 3 free of 4"),
    ],
)
def test_what_is_waited_for(least: int, most: int, free: int, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "count_free", lambda _: (free, 4))
    monkeypatch.setattr(waiting, "has_reserved", lambda _: False)
    assert find_wait(least, most, "GPU") == Wait(sentence=sentence, is_short=free < least)
    monkeypatch.setattr(waiting, "has_reserved", lambda _: True)
    assert find_wait(least, most, "GPU") is None


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # sockets of Ray's own processes
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning:ray.*")
def test_what_the_run_has_reserved_itself_is_not_waited_for() -> None:
    """Of a real session: nothing is free while workers start, and the run was said to wait for what it had."""
    from crossdim.foundation.cluster import ray_session

    with ray_session(num_cpus=2):
        import ray
        from ray.util.placement_group import placement_group

        assert find_wait(3, 3, "CPU") == Wait(
            sentence="needs 3 workers with 1 CPU each; the cluster has 2 free of 2", is_short=True
        )
        too_much = placement_group([{"CPU": 1}] * 3)
        wait = find_wait(3, 3, "CPU")
        assert wait
        assert wait.is_short
        ray.util.remove_placement_group(too_much)
        assert placement_group([{"CPU": 1}] * 2).wait(60)
        assert find_wait(2, 2, "CPU") is None
        assert find_wait(2, 2, "GPU") is not None
    assert find_wait(2, 2, "CPU") is None
