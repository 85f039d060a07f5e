"""Suite `distributed`: the model of an exchange and its fit, and what a process measures."""

from __future__ import annotations

import pytest
import torch.distributed
from bench_checks import bench_package as bench_package
from bench_checks import threads as threads


@pytest.fixture
def suite():
    from bench.distributed import suite

    return suite


def test_the_fit_finds_the_link_that_made_the_times(suite):
    times = [[n, suite.exchange(2, n, 30e-6, 2e9)] for n in (4, 4096, 4 << 20)]
    latency, bandwidth = suite.fitted(times)
    assert latency == pytest.approx(30e-6)
    assert bandwidth == pytest.approx(2e9)


def test_the_model_counts_the_ring_s_messages(suite):
    assert suite.exchange(1, 1e6, 1e-5, 1e9) == 0
    # three processes: two rounds of two messages of a third
    assert suite.exchange(3, 3e6, 1e-5, 1e9) == pytest.approx(4 * (1e-5 + 1e-3))
    assert "50%" in suite.paid({"x": [suite.exchange(64, 4000, *suite.LINKS["100 Gbit/s, 5 us"]), 0, 1000]})


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs torch's gloo backend")
def test_a_process_measures_every_network_and_size(suite, tmp_path, monkeypatch):
    from bench.distributed import worker

    monkeypatch.setattr(worker, "NETWORKS", dict(list(worker.NETWORKS.items())[:1]))
    found = worker.process(0, 1, str(tmp_path), quick=True)
    ((alone, averaged, parameters),) = found["steps"].values()
    assert min(alone, averaged) > 0
    assert parameters == 2 * 25 + 25 + 2 * (25 * 25 + 25) + 25 * 2 + 2
    assert [n for n, _ in found["exchange"]] == [4 * n for n in worker.SIZES[::2]]
    measured = dict.fromkeys(suite.COUNTS, found)
    assert suite.stepped(measured).count("\n") == 4
    assert suite.checked(measured, suite.fitted(found["exchange"])).count("\n") == 4
