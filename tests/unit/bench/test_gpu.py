"""`python -m bench.gpu`, whose figures want a GPU, works; at a size for which a CPU is enough."""

from __future__ import annotations

import pytest

from bench import gpu


@pytest.mark.campaign  # half a minute
def test_every_work_is_measured() -> None:
    found = {one.work: one for one in gpu.measure(gpu.TINY, "cpu")}
    assert list(found) == ["descriptions", "questions", "DPO step", "SFT step"]
    assert all(
        one.seconds > 0 and one.share_of_peak > 0 and one.peak_memory_gb is None for one in found.values()
    )
    image = (gpu.SIDE // gpu.PATCH) ** 2
    asked = gpu.TINY.pictures * gpu.QUESTIONS
    assert asked * image < found["questions"].tokens <= asked * (image + gpu.ANSWERED)
    assert [one.generate_seconds is not None for one in found.values()] == [True, True, False, False]
