"""A scripted run: ten epochs of six steps, the sampler takes part from the sixth on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scripted import Event, record, start

from tats_ray.view.progress import BoardPlan


@pytest.fixture
def plan() -> BoardPlan:
    return BoardPlan(
        name="demo",
        total_steps=60,
        total_epochs=10,
        steps_per_epoch=6,
        mae_only_epochs=5,
        num_tokens=256,
        num_visible=25,
    )


@pytest.fixture
def script() -> Callable[..., list[Event]]:
    def make(*, until: int = 60, data: float = 0.08) -> list[Event]:
        events, time = [start()], 100.0
        for step in range(6, until + 1, 6):
            is_joint = step > 30
            time += 6.0 if is_joint else 3.0
            policy = {"policy__entropy": 0.9, "policy__approx_kl": 0.01} if is_joint else {}
            handover = {"time__handover": 0.02} if is_joint else {}
            events.append(
                record(
                    step,
                    time,
                    mae__loss=1.0 - step / 100,
                    env__reward=0.9 - step / 100,
                    data__clips_per_s=312.0,
                    data__replaced=0.0,
                    time__data=data,
                    time__mae=0.88 - data,
                    time__policy=0.12,
                    **policy,
                    **handover,
                )
            )
            if step % 12 == 0:
                events.append(
                    record(
                        step,
                        time + 0.5,
                        eval__error=1.0 - step / 120,
                        eval__own_error=0.98 - step / 120,
                        eval__entropy=0.99 if not is_joint else 0.88,
                        eval__effective_tokens=240.0,
                        eval__clip_overlap=0.12,
                        eval__draw_overlap=0.2,
                        eval__motion_ratio=1.02 if not is_joint else 1.8,
                        eval__motion_auc=0.5 if not is_joint else 0.75,
                    )
                )
        return events

    return make
