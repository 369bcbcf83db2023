"""The simulator: its fast data plane against the fine one, the same bytes for the same seed, nobody lost, and what policies make of it."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from autoscaling.simulator import report
from autoscaling.simulator.cluster import Cluster, Hardware, Phase, Replica
from autoscaling.simulator.kernel import noise_factor
from autoscaling.simulator.legs import Board
from autoscaling.simulator.policies import Static
from autoscaling.simulator.presets import setting
from autoscaling.simulator.signals import Autoscaler
from autoscaling.simulator.simulation import Setting, Simulation
from autoscaling.simulator.workload import Arrivals, Faults, Lengths, Workload, draw, from_csv, streams, workloads
from deployments.scaling.simulated import POLICIES, Tuned, policy
from model_core.stage import Stage

SHORT = setting(30, 240, 60)
SHORT = replace(SHORT, hardware=replace(SHORT.hardware, node_start_s=20.0, replica_start_s=dict.fromkeys(Stage, 5.0)))
ROUGH = replace(
    workloads(30, 60.0)["diurnal"],
    arrivals=Arrivals(0.9, swing=0.6, period_s=240.0),
    switch_s=20.0,
    faults=Faults(crash_s=40.0, spot_s=80.0, notice_s=30.0),
)

CALM = replace(ROUGH, faults=Faults())


def run(x: Setting, workload: Workload, name: str = "headrace", seed: int = 1) -> Simulation:
    simulation = Simulation(x, workload, policy(name, x, workload, seed, Tuned()), seed)
    simulation.run()
    return simulation


@pytest.mark.parametrize("tight", [False, True])
def test_the_fast_data_plane_does_what_the_fine_one_does(tight: bool) -> None:
    """Event for event: with room, and with too few of everything; sessions move, change their steps and lose replicas meanwhile."""
    x = SHORT if not tight else replace(SHORT, prewarmed={**SHORT.prewarmed, Stage.DENOISER: 2, Stage.DECODER: 2})
    few: Autoscaler = Static(x.prewarmed)
    fast, fine = (Simulation(replace(x, fine=fine), ROUGH, few, 3) for fine in (False, True))
    a, b = fast.run(), fine.run()
    np.testing.assert_array_equal(fast.ttff_s(), fine.ttff_s())
    assert replace(a, events=0) == replace(b, events=0)
    assert 0 < a.on_time_share < 1  # both had something to be late with
    assert b.good_s > 0


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not() -> None:
    def document(seed: int) -> str:
        simulation = run(SHORT, ROUGH, seed=seed)
        return json.dumps([simulation.ttff_s().tolist(), asdict(simulation.timeline)])

    assert document(1) == document(1)
    assert document(1) != document(2)


@pytest.mark.parametrize("name", POLICIES)
def test_nobody_is_lost(name: str) -> None:
    simulation = run(SHORT, ROUGH, name)
    books = simulation.books
    assert books.balanced()
    assert books.arrived == len(simulation.visitors.at_s)
    assert run(SHORT, CALM, name).books.killed == 0


def test_every_policy_meets_the_same_visitors_and_one_stream_does_not_move_another() -> None:
    one = draw(ROUGH, 7, 600.0)
    longer = draw(replace(ROUGH, lengths=Lengths(500.0, "pareto", 1.5), faults=Faults()), 7, 600.0)
    np.testing.assert_array_equal(one.at_s, longer.at_s)
    np.testing.assert_array_equal(one.luck, longer.luck)


def test_visitors_whose_steps_are_fixed_are_the_same_visitors_and_are_never_lowered() -> None:
    tight = replace(SHORT, prewarmed={**SHORT.prewarmed, Stage.DENOISER: 2, Stage.DECODER: 2})
    all_fixed = replace(ROUGH, fixed_share=1.0)
    one, other = draw(ROUGH, 7, 600.0), draw(all_fixed, 7, 600.0)
    np.testing.assert_array_equal(one.luck, other.luck)
    assert (one.fixed, other.fixed) == (frozenset(), frozenset(range(len(one.at_s))))
    some = draw(replace(ROUGH, fixed_share=0.5), 7, 600.0).fixed
    assert 0 < len(some) < len(one.at_s)
    lowered, left_alone = (Simulation(tight, workload, Static(tight.prewarmed), 3).run() for workload in (ROUGH, all_fixed))
    assert lowered.degraded_share > 0
    assert left_alone.degraded_share == 0


def test_sessions_end_with_their_replica_where_nothing_is_handed_over() -> None:
    """Serve's own way: after the grace time, what still runs is killed."""

    class Less:
        interval_s = 60.0

        def decide(self, now: float, history: object) -> object:
            return Static({**SHORT.prewarmed, Stage.DENOISER: 3}).decide(now, history)  # type: ignore[arg-type]

    kept, killed = (Simulation(replace(SHORT, grace_s=g), replace(CALM, switch_s=0.0), Less(), 1) for g in (None, 5.0))  # type: ignore[arg-type]
    assert kept.run().killed == 0
    assert killed.run().killed > 0


@pytest.mark.parametrize(
    ("arrivals", "cv"), [(Arrivals(5.0), 1.0), (Arrivals(5.0, cv=3.0), 3.0), (Arrivals(5.0, swing=0.5, period_s=100.0), None)]
)
def test_arrivals_have_their_rate_and_their_variation(arrivals: Arrivals, cv: float | None) -> None:
    at = arrivals.draw(streams(1)["arrivals"], 20_000.0)
    assert at.size / 20_000.0 == pytest.approx(5.0, rel=0.05)
    gaps = np.diff(at)
    assert (gaps >= 0).all()
    if cv is not None:
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.1)


def test_a_flash_crowd_comes_when_it_is_said_to() -> None:
    at = Arrivals(5.0, flash=4.0, flash_at_s=600.0).draw(streams(1)["arrivals"], 1200.0)
    assert np.sum((at > 630) & (at < 750)) / 120 == pytest.approx(20.0, rel=0.15)
    assert np.sum(at < 600) / 600 == pytest.approx(5.0, rel=0.15)


def test_a_trace_is_replayed_and_a_bad_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "evening.csv"
    path.write_text("arrival_s,length_s\n1.5,20\n2.5,30\n")
    visitors = draw(from_csv(path), 1, 100.0)
    assert visitors.at_s.tolist() == [1.5, 2.5]
    assert visitors.length_s.tolist() == [20.0, 30.0]
    path.write_text("arrival_s,length_s\n3,20\n2.5,30\n")
    with pytest.raises(ValueError, match=r"line 3: arrivals must ascend from 0 and lengths be above 0; got 2\.5, 30"):
        from_csv(path)
    path.write_text("at,length\n")
    with pytest.raises(ValueError, match="must have the columns arrival_s and length_s; got at, length"):
        from_csv(path)


def test_nodes_come_late_fill_up_and_go_when_idle() -> None:
    cluster = Cluster(Hardware(start_cv=0.0, max_nodes=2), streams(1)["starts"])
    cluster.scale({Stage.DENOISER: 5}, None, 0.0)
    assert cluster.advance(0.0) == []
    assert len(cluster.nodes) == 2
    assert cluster.advance(150.0) == []
    assert len(cluster.advance(180.0)) == 5
    first = next(iter(cluster.nodes.values()))
    assert first.free == 0
    cluster.scale({Stage.DENOISER: 4}, None, 200.0)
    (draining,) = [r for r in cluster.replicas[Stage.DENOISER].values() if r.phase is Phase.DRAINING]
    assert draining.node is not first  # Serve stops what stands on the emptiest node
    cluster.remove(draining, 200.0)
    cluster.advance(259.0)
    assert len(cluster.nodes) == 2
    cluster.advance(261.0)
    assert len(cluster.nodes) == 1


def test_the_least_busy_replica_is_chosen_and_the_oldest_of_several() -> None:
    rng, board = random.Random(1), Board(slots=3)
    here: list[Replica] = []
    for key in range(2000):
        match rng.choice(["add", "remove", "come", "come", "go"]), here:
            case "add", _:
                here.append(Replica(key, Stage.DENOISER))
                board.add(here[-1])
            case "remove", [_, *_]:
                board.remove(here.pop(rng.randrange(len(here))))
            case "come", [_, *_] if (best := board.best()) is not None:
                board.enter(best, key)
            case "go", [_, *_] if (busy := rng.choice(here)).sessions:
                board.leave(busy, rng.choice(list(busy.sessions)))
        free = [replica for replica in here if len(replica.sessions) < 3]
        assert board.best() is min(free, key=lambda replica: len(replica.sessions), default=None)


def test_noise_has_the_mean_and_the_deviation_that_it_is_said_to_have() -> None:
    values = np.array([noise_factor(1, key, count, 0.1) for key in range(5) for count in range(4000)])
    assert values.mean() == pytest.approx(1.0, abs=0.003)
    assert values.std() == pytest.approx(0.1, rel=0.03)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    simulation = Simulation(SHORT, ROUGH, Static(SHORT.prewarmed), 1)
    outcome = simulation.run()
    text = report.table({"static": [outcome, outcome]})
    html = report.page("a < b", [report.plots("over time", {"static": simulation.timeline})], text)
    assert "a &lt; b" in html
    assert html.count("<svg") == 8
    assert "://" not in html.replace("http://www.w3.org/2000/svg", "")
