"""How instances and threads share the cores."""

import os
from pathlib import Path

import pytest

from gateway.converter import placement
from gateway.converter.placement import placement_for_machine, usable_cores


@pytest.mark.parametrize(
    ("cores", "instances", "threads"),
    [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 4, 1), (6, 3, 2), (7, 3, 2), (8, 4, 2), (64, 4, 16)],
)
def test_instances_come_first(cores: int, instances: int, threads: int) -> None:
    """Up to four instances of one thread, then more threads for each."""
    chosen = placement_for_machine(cores)
    assert (chosen.instances, chosen.intra_op_threads) == (instances, threads)


@pytest.mark.parametrize(("cores", "threads"), [(1, None), (2, 2), (8, 8)])
def test_who_is_alone_may_have_every_core(cores: int, threads: int | None) -> None:
    """A thread for each core, where that is more than any other request gets."""
    assert placement_for_machine(cores).latency_threads == threads


@pytest.mark.parametrize("cores", range(1, 257))
def test_cores_are_never_oversubscribed_nor_left_idle(cores: int) -> None:
    """What is used is at most the cores, and less than one instance's threads below them."""
    chosen = placement_for_machine(cores)
    used = chosen.instances * chosen.intra_op_threads
    assert cores - chosen.intra_op_threads < used <= cores
    assert 1 <= chosen.instances <= 4


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("max 100000", None), ("50000 100000", 1), ("100000 100000", 1), ("99900000 100000", None)],
)
def test_container_limit_counts(
    limit: str, cores: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU limit below the affinity is what there is; half a core is one."""
    file = tmp_path / "cpu.max"
    file.write_text(f"{limit}\n")
    monkeypatch.setattr(placement, "_CGROUP_QUOTA", file)
    assert usable_cores() == (cores or len(os.sched_getaffinity(0)))


def test_machine_without_cgroups_has_its_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, no limit."""
    monkeypatch.setattr(placement, "_CGROUP_QUOTA", tmp_path / "absent")
    assert usable_cores() == len(os.sched_getaffinity(0))
