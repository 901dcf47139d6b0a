"""Which configurations are tried, and what of a configuration they change."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.converter.model_config import parse
from gateway.tuning.candidates import (
    Candidate,
    Space,
    apply,
    read_candidate,
    read_space,
    without_repeats,
)

HAND_TUNED = """
name: "m"
backend: "onnxruntime"
max_batch_size: 8
instance_group { count: 2 kind: KIND_CPU }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
parameters { key: "mine" value { string_value: "kept" } }
dynamic_batching { preferred_batch_size: 4 default_queue_policy { max_queue_size: 5 } }
model_warmup { name: "w" batch_size: 1 }
"""
PRESENT = Candidate(2, 1, None, 0, 8)

candidates = st.builds(
    Candidate,
    instances=st.integers(1, 16),
    threads=st.integers(0, 16),
    spinning=st.sampled_from([None, True, False]),
    queue_delay_us=st.sampled_from([None, 0, 200, 1000]),
    max_batch_size=st.sampled_from([8, 16]),
)


def test_a_configuration_is_a_candidate() -> None:
    """What is searched is read from a configuration, Triton's and onnxruntime's defaults too."""
    assert read_candidate(parse(HAND_TUNED)) == PRESENT
    assert read_candidate(parse("")) == Candidate(2, 0, None, None, 0)


def test_the_present_candidate_is_the_configuration_itself() -> None:
    """Applied to its own configuration, the present candidate changes nothing, policy or not."""
    config = parse(HAND_TUNED)
    assert apply(config, PRESENT) == config


@given(candidate=candidates)
def test_a_candidate_is_applied_whole_and_nothing_else(candidate: Candidate) -> None:
    """A configuration that was made a candidate reads as it; what is not searched is the same."""
    config = parse(HAND_TUNED)
    changed = apply(config, candidate)
    assert read_candidate(changed) == candidate
    assert changed.instance_group[0].kind == config.instance_group[0].kind
    assert changed.parameters["mine"].string_value == "kept"
    for field in ("instance_group", "parameters", "dynamic_batching", "max_batch_size"):
        changed.ClearField(field)
        config.ClearField(field)
    assert changed == config


def test_a_batcher_is_tried_without_a_queue_policy() -> None:
    """A queue policy makes the batcher sleep while requests wait: no candidate brings one."""
    changed = apply(parse(HAND_TUNED), Candidate(2, 1, None, 200, 8))
    assert not changed.dynamic_batching.HasField("default_queue_policy")


@pytest.mark.parametrize("cores", [1, 2, 4, 6, 64])
def test_placements_share_the_cores_out(cores: int) -> None:
    """The likeliest placement uses just the cores; none asks for more than twice as many."""
    placements = Space(cores, instances=True, batching=True).placements(PRESENT)
    used = [candidate.instances * candidate.threads for candidate in placements]
    assert used[0] == cores
    assert max(used) <= 2 * cores
    assert (placements[0].instances, placements[0].threads) == (cores, 1)


def test_what_a_configuration_forbids_is_not_tried() -> None:
    """Several instance groups stay as placed; a model without batches gets no batcher."""
    config: Any = parse('name: "m" instance_group { count: 1 } instance_group { count: 2 }')
    space = read_space(config, cores=4)
    present = read_candidate(config)
    assert {candidate.instances for candidate in space.placements(present)} == {3}
    assert {candidate.queue_delay_us for candidate in space.variants(present)} == {None}
    sequences = parse("max_batch_size: 8 sequence_batching { }")
    assert not read_space(sequences, cores=4).batching


def test_a_batcher_may_be_taken_away() -> None:
    """The present configuration without its batcher is a candidate; without one there is none."""
    space = Space(2, instances=True, batching=True)
    assert space.unbatched(PRESENT) == [Candidate(2, 1, None, None, 8)]
    assert space.unbatched(Candidate(2, 1, None, None, 8)) == []
    assert Space(2, instances=True, batching=False).unbatched(PRESENT) == []


def test_variants_never_take_smaller_batches() -> None:
    """Callers may send batches as large as today: the largest only grows."""
    found = Space(2, instances=True, batching=True).variants(Candidate(2, 1, None, None, 16))
    assert {candidate.max_batch_size for candidate in found} == {16, 32}
    assert {candidate.queue_delay_us for candidate in found} == {0, 200, 1000}


def test_spinning_is_tried_where_there_are_threads_to_spin() -> None:
    """One thread waits for nobody: spinning is varied for more than one alone."""
    space = Space(2, instances=True, batching=False)
    assert space.variants(Candidate(1, 1, None, None, 0)) == []
    assert space.variants(Candidate(1, 2, None, None, 0)) == [Candidate(1, 2, False, None, 0)]


def test_repeats_are_left_out() -> None:
    """A candidate is tried once, and a known one not at all."""
    one, other = Candidate(1, 1, None, None, 0), Candidate(2, 1, None, None, 0)
    assert without_repeats([one, other, one], but=[other]) == [one]
