"""The model of a data-parallel step: closed forms, cases by hand, and simulations by single events."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.model import (
    Inputs,
    admits,
    all_reduce_s,
    binding,
    buckets,
    cause,
    delivery_s,
    efficiency,
    exchange,
    fullest,
    ring_s,
    simulate,
    verdict,
)
from benchmarks.simulate import COUNTS, line_through, of_recipe
from crossdim.storage_schema.errors import UsageError
from crossdim.training.data.order import DatasetOrder, Order
from crossdim.training.recipes import recipe

#: 100 bytes in buckets of 40, and round numbers; nothing is lost, and the store delivers at once.
ROUND = Inputs(
    sample_s=3.0,
    fixed_s=0.0,
    gradient_bytes=100,
    checkpoint_bytes=0,
    sample_bytes=0.0,
    views_s=0.0,
    streams=1,
    least=1,
    bucket_bytes=40,
    node_gpus=8,
    link_bytes_per_s=50.0,
    link_latency_s=0.25,
    network_bytes_per_s=100.0,
    network_latency_s=0.5,
    reached=1.0,
    first_byte_s=0.0,
    prefix_gets_per_s=math.inf,
    node_losses_per_h=0.0,
)
LIKELY = of_recipe("cdssl-p3d", sample_s=0.007, fixed_s=0.015)

likely = st.builds(
    lambda sample, fixed, size, stored, prefixes, network, losses: replace(
        LIKELY,
        sample_s=sample,
        fixed_s=fixed,
        gradient_bytes=size,
        sample_bytes=stored,
        prefixes=prefixes,
        network_bytes_per_s=network,
        node_losses_per_h=losses,
    ),
    st.floats(1e-4, 10),
    st.floats(0, 0.1),
    st.integers(1, 10**10),
    st.floats(0, 1e8),
    st.integers(1, 100),
    st.floats(1e8, 1e12),
    st.floats(0, 1e-2),
)


def test_a_ring_of_two_moves_everything_once_there_and_back_by_halves() -> None:
    """Two messages of a half: B / bandwidth, and two latencies."""
    assert ring_s(100, 2, 50, 0.25) == 100 / 50 + 2 * 0.25
    assert ring_s(100, 1, 50, 0.25) == 0


@given(st.integers(2, 40), st.floats(1, 1e9), st.floats(1, 1e9), st.floats(0, 1))
def test_a_ring_is_2_n_minus_1_rounds(members: int, size: float, bytes_per_s: float, latency_s: float) -> None:
    """An oracle that sends: in each round everyone passes one chunk on, until everybody has every chunk's sum."""
    held = [[{member} for _ in range(members)] for member in range(members)]
    seconds = 0.0
    while any(len(chunk) < members for mine in held for chunk in mine):
        number = round(seconds / (size / members / bytes_per_s + latency_s))
        sent = [(member, (member - number) % members, held[member][(member - number) % members]) for member in range(members)]
        for member, chunk, parts in sent:
            held[(member + 1) % members][chunk] = held[(member + 1) % members][chunk] | parts
        seconds += size / members / bytes_per_s + latency_s
    assert ring_s(size, members, bytes_per_s, latency_s) == pytest.approx(seconds)


def test_an_all_reduce_has_two_floors() -> None:
    """16 GPUs by hand: 14 messages of 12.5 bytes at 50 bytes/s inside; 2 of 50 at 100 between, as if a node were one."""
    assert all_reduce_s(ROUND, 100, 16) == pytest.approx(14 * (12.5 / 50 + 0.25) + 2 * (50 / 100 + 0.5))
    assert all_reduce_s(ROUND, 100, 4) == pytest.approx(6 * (25 / 50 + 0.25))


def test_gpus_fill_nodes() -> None:
    with pytest.raises(UsageError, match="12 GPUs do not fill nodes of 8"):
        all_reduce_s(ROUND, 100, 12)


def test_buckets_hold_everything() -> None:
    assert buckets(100, 40) == [40, 40, 20]
    assert buckets(40, 40) == [40]


def test_an_overlap_by_hand() -> None:
    """The second waits for the first, the third for its gradients."""
    assert exchange([1.0, 2.0, 9.0], [3.0, 4.0, 0.5]) == [(1.0, 4.0), (4.0, 8.0), (9.0, 9.5)]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=12))
def test_an_overlap_walked_tick_by_tick(given_buckets: list[tuple[int, int]]) -> None:
    """An oracle with a clock and a queue."""
    ready, costs = sorted(there for there, _ in given_buckets), [cost for _, cost in given_buckets]
    waiting, left, begun, spans = deque(enumerate(ready)), 0, 0, []
    for now in range(1000):
        if left:
            left -= 1
            if not left:
                spans.append((begun, now))
        if not left and waiting and waiting[0][1] <= now:
            number, _ = waiting.popleft()
            begun, left = now, costs[number]
    assert exchange(ready, costs) == spans


def test_a_step_by_hand() -> None:
    """Two GPUs, one sample each: forward 1 s, backward 2 s, buckets of 40, 40 and 20 bytes.

    They are there at 1.8, 2.6 and 3.0 s and take 40 / 50 + 0.5 = 1.3, 1.3 and 0.9 s: from 1.8, 3.1 and 4.4 to 5.3 s.
    """
    step = simulate(ROUND, 2, 2)
    assert step.compute_s == 3.0
    assert step.gradients_s == pytest.approx(2.3)
    assert step.step_s == pytest.approx(5.3)


def test_a_store_by_hand() -> None:
    """Six samples of 10 bytes on three GPUs; each limit in turn is the slowest."""
    slow = replace(ROUND, sample_bytes=10.0, connection_bytes_per_s=5.0, first_byte_s=1.0, views_s=3.0, threads=2)
    assert delivery_s(slow, 3, 6) == 2 * (1 + 10 / 5 + 3) / 2
    assert delivery_s(replace(slow, threads=50), 3, 6) == 2 * (1 + 10 / 5 + 3) / 4  # two steps are under way
    assert delivery_s(replace(slow, node_store_bytes_per_s=0.5), 3, 6) == 3 * 2 * 10 / 0.5
    assert delivery_s(replace(slow, streams=2, prefixes=3, prefix_gets_per_s=0.01), 3, 6) == pytest.approx(6 / 2 / 3 / 0.01)
    # 9 s of arithmetic on one GPU hide the 9 s of delivery; on three GPUs both are a third.
    assert simulate(slow, 1, 3).store_s == 0
    assert simulate(replace(slow, threads=1), 1, 3).store_s == pytest.approx(9)


def test_checkpoints_and_losses_by_hand() -> None:
    """A step of 3 s; every 600 s a copy of 60 s and an upload of 60 s beside training: held for a tenth, 0.3 s.

    Two nodes lose one in 6,000 s, which costs 100 + 200 s, 300 s of steps and 60 s of an upload that was under way: 0.11.
    An upload of 900 s holds training for 300 s more.
    """
    losing = replace(
        ROUND,
        checkpoint_bytes=600,
        copy_bytes_per_s=10.0,
        upload_bytes_per_s=10.0,
        node_losses_per_h=0.3,
        detection_s=100.0,
        restart_s=200.0,
        link_latency_s=0.0,
        link_bytes_per_s=math.inf,
        network_latency_s=0.0,
        network_bytes_per_s=math.inf,
    )
    step = simulate(losing, 16, 16)
    assert step.checkpoint_s == pytest.approx(0.3)
    assert step.loss_s == pytest.approx(3.3 * 0.11)
    assert step.step_s == pytest.approx(3.3 * 1.11)
    assert simulate(losing, 1, 1).loss_s == pytest.approx(3.3 * 0.055)
    assert simulate(replace(losing, upload_bytes_per_s=600 / 900), 1, 1).checkpoint_s == pytest.approx(3.0 * (60 + 300) / 600)


@given(likely, st.sampled_from([6, 64, 8192]))
def test_one_gpu_is_the_measure(inputs: Inputs, batch: int) -> None:
    one = simulate(inputs, 1, batch)
    assert efficiency(one, one) == 1
    assert one.gradients_s == 0
    assert one.compute_s == pytest.approx(inputs.fixed_s + batch * inputs.sample_s)


@given(likely, st.sampled_from(COUNTS))
def test_with_nothing_in_the_way_there_is_only_compute(inputs: Inputs, gpus: int) -> None:
    """Bandwidth without end, no latency, no loss."""
    free = replace(
        inputs,
        link_bytes_per_s=math.inf,
        link_latency_s=0.0,
        network_bytes_per_s=math.inf,
        network_latency_s=0.0,
        first_byte_s=0.0,
        connection_bytes_per_s=math.inf,
        views_s=0.0,
        node_store_bytes_per_s=math.inf,
        prefix_gets_per_s=math.inf,
        copy_bytes_per_s=math.inf,
        upload_bytes_per_s=math.inf,
        node_losses_per_h=0.0,
    )
    step = simulate(free, gpus, 64 * gpus)
    assert step.step_s == pytest.approx(inputs.fixed_s + 64 * inputs.sample_s)
    assert efficiency(simulate(free, 1, 64), step) == pytest.approx(1)


@given(likely)
def test_more_gpus_never_make_a_weak_step_shorter(inputs: Inputs) -> None:
    steps = [simulate(inputs, gpus, 64 * gpus) for gpus in COUNTS]
    for few, many in pairwise(steps):
        assert many.step_s >= few.step_s * (1 - 1e-12)
        assert many.compute_s == few.compute_s


@given(likely)
def test_efficiency_of_strong_scaling_only_falls(inputs: Inputs) -> None:
    steps = [simulate(inputs, gpus, 8192) for gpus in COUNTS]
    shares = [efficiency(steps[0], step) for step in steps]
    assert all(later <= sooner * (1 + 1e-9) for sooner, later in pairwise(shares))


@given(likely, st.sampled_from(COUNTS[1:]))
def test_slower_networks_never_help(inputs: Inputs, gpus: int) -> None:
    """Larger gradients may: their last bucket, which nothing hides, may be smaller."""
    step = simulate(inputs, gpus, 8192).step_s
    for worse in (
        replace(inputs, network_bytes_per_s=inputs.network_bytes_per_s / 2),
        replace(inputs, link_bytes_per_s=inputs.link_bytes_per_s / 2),
        replace(inputs, link_latency_s=2 * inputs.link_latency_s),
    ):
        assert simulate(worse, gpus, 8192).step_s >= step * (1 - 1e-12)


def test_shares_are_those_of_the_real_order() -> None:
    """For every world: the fullest worker's samples, and whether the smallest share of a dataset is enough."""
    order = Order(0, (DatasetOrder(num_samples=500, weight=1), DatasetOrder(num_samples=500, weight=1)))
    for world in range(1, 40):
        shares = [[len(share) for share in order.share(0, 64, rank, world)] for rank in range(world)]
        assert fullest(LIKELY, world, 64) == max(map(sum, shares))
        assert admits(LIKELY, world, 64) == (min(map(min, shares)) >= recipe("cdssl-p3d").method.min_rank_batch)
    assert binding(LIKELY, 16, 64) == "samples"
    assert "stops at 8 GPUs" in verdict(LIKELY, [(gpus, 64) for gpus in COUNTS])


def test_what_binds_and_why_it_stops() -> None:
    """Each part made hopeless in turn."""
    fast = replace(LIKELY, prefixes=1000)
    network = replace(fast, network_bytes_per_s=1e8)
    store = replace(LIKELY, prefix_gets_per_s=10.0)
    assert [binding(inputs, 64, 4096) for inputs in (fast, network, store)] == ["compute", "gradients", "store"]
    overhead = replace(fast, fixed_s=100.0)
    found = [cause(simulate(inputs, 1, 64), simulate(inputs, 64, 4096)) for inputs in (network, store)]
    assert found == ["gradients", "store"]
    little = simulate(fast, 64, 4096)  # what is lost is little beside what every step costs
    assert (cause(simulate(fast, 1, 64), little), little.gradients_s < 0.01 * little.compute_s) == ("gradients", True)
    assert cause(simulate(overhead, 1, 8192), simulate(overhead, 64, 8192)) == "compute"
    steps = [(gpus, 64 * gpus) for gpus in COUNTS]
    assert verdict(network, steps).startswith("stops at 8 GPUs")
    assert verdict(network, steps).endswith("gradients")
    assert verdict(fast, steps).startswith("goes on to 1024 GPUs, efficiency 0.99")


def test_gradients_are_the_networks() -> None:
    """17,111,434 numbers of four bytes, once in the gradient, and with momentum and encoder in a checkpoint."""
    assert LIKELY.gradient_bytes == 4 * 17_111_434
    assert LIKELY.checkpoint_bytes == 4 * (2 * 17_111_434 + 7_027_776)
    assert (LIKELY.streams, LIKELY.least) == (2, 3)


def test_a_line_through_two_measured_steps() -> None:
    assert line_through([(2, 0.5)]) == (0.0, 0.25)
    assert line_through([(16, 3.3), (2, 0.5)]) == pytest.approx((0.1, 0.2))


def test_impossible_inputs_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        replace(ROUND, least=0)
