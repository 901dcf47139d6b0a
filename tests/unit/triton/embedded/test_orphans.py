from pathlib import Path

from gateway.triton.embedded.orphans import sweep_processes, sweep_shared_memory


def test_only_our_regions(tmp_path: Path) -> None:
    """Regions of another prefix stay."""
    for name in ("gwtriton_a_1", "gwtriton_a_2", "gwtriton_b_1", "psm_x"):
        (tmp_path / name).touch()
    assert sweep_shared_memory("gwtriton_a_", tmp_path) == ["gwtriton_a_1", "gwtriton_a_2"]
    assert {path.name for path in tmp_path.iterdir()} == {"gwtriton_b_1", "psm_x"}


def test_no_process_no_kill() -> None:
    """A prefix that nobody carries sweeps nothing."""
    assert sweep_processes("gwtriton_nobody_carries_this_") == []
