"""How many trials fit, against counting by hand; without Ray."""

from __future__ import annotations

import pytest

from tats_ray.config.load import parse_config
from tats_ray.core.errors import UsageError
from tats_ray.runtime.resources.packing import DRIVER_CPU, trials_at_once
from tats_ray.runtime.resources.request import ResourceRequest


def request(source: str = "learner", **cluster: object) -> ResourceRequest:
    return ResourceRequest.of(parse_config({"loop": {"source": source}, "cluster": cluster}))


SMALL = request()
PAPER = request(num_workers=2, cpus_per_worker=8, use_gpu=True, policy_gpus=1)
FED = request("workers", cpus_per_worker=2, rollout_workers=2, rollout_gpus=0.5)


@pytest.mark.parametrize(
    ("need", "nodes", "expected"),
    [
        (SMALL, [{"CPU": 2}], 1),  # the drivers' hundredths do not fit beside two learners
        (SMALL, [{"CPU": 2.02}], 2),
        # The first driver may land on the second CPU: what might not fit is not counted on.
        (SMALL, [{"CPU": 1}, {"CPU": 1}, {"CPU": 0.02}], 1),
        (PAPER, [{"CPU": 64, "GPU": 8}], 2),
        (PAPER, [{"CPU": 17, "GPU": 8}], 1),
        (PAPER, [{"CPU": 9, "GPU": 1}] * 3, 1),  # a learner each, and the policy on the third
        # Six GPUs in all, but four of them on a node without CPUs for a learner.
        (PAPER, [{"CPU": 64, "GPU": 2}, {"CPU": 1, "GPU": 4}], 1),
        (FED, [{"CPU": 13, "GPU": 8}], 2),  # a learner and two workers each
        (FED, [{"CPU": 64, "GPU": 1}], 1),
    ],
)
def test_as_many_trials_as_whole_sets_of_parts_find_a_node(
    need: ResourceRequest, nodes: list[dict[str, float]], expected: int
) -> None:
    assert trials_at_once(need, nodes) == expected


def test_needs_are_named_with_all_who_reserve_something() -> None:
    assert str(FED) == "1 MAE learner with 2 CPU, 2 rollout workers with 0.5 GPU + 2 CPU each"
    assert FED.total == {"CPU": 6, "GPU": 1}


def test_drivers_with_cpus_of_their_own_leave_all_cores_to_learners() -> None:
    assert trials_at_once(SMALL, [{"CPU": 2.0}], driver_cpu=0.0) == 2


def test_a_trial_that_no_node_holds_is_refused_although_the_sum_would_do() -> None:
    wide = request(cpus_per_worker=6)
    with pytest.raises(
        UsageError, match=r"6 CPU.*2 nodes with 10 CPU.*cannot hold it: lower cluster\.cpus_"
    ):
        trials_at_once(wide, [{"CPU": 5}, {"CPU": 5}])


def test_trials_never_hold_more_than_there_is() -> None:
    for cpus in range(1, 40):
        nodes = [{"CPU": float(cpus)}, {"CPU": cpus / 2}]
        need = request(num_workers=2, cpus_per_worker=0.5)
        count = trials_at_once(need, nodes)
        taken = count * (1 + DRIVER_CPU)
        assert taken <= cpus * 1.5
        assert cpus * 1.5 - taken < 2 * (1 + DRIVER_CPU)


def test_the_most_of_several_needs_holds_each_of_them() -> None:
    both = ResourceRequest.most([SMALL, PAPER])
    assert both == PAPER
    assert ResourceRequest.most([PAPER, FED]).processes.count({"GPU": 0.5, "CPU": 8}) == 2
    assert both.total == {"CPU": 16, "GPU": 3}
