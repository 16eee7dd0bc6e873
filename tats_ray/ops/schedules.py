"""Learning-rate schedules, as pure functions of the step."""

import math


def warmup_cosine(
    step: int, *, base: float, minimum: float, warmup_steps: int, total_steps: int
) -> float:
    """Rise from 0 to `base` over the warm-up, then follow half a cosine towards `minimum`.

    Step 0 has rate 0 when there is a warm-up; step `warmup_steps` has `base`; the last step,
    `total_steps - 1`, is within one step of `minimum` [VideoMAE utils; method section 8].
    """
    if step < warmup_steps:
        return base * step / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return minimum + 0.5 * (base - minimum) * (1 + math.cos(math.pi * min(progress, 1.0)))
