"""Is my run healthy? One verdict per question, in words, from the metrics alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tats_ray.core.words import counted, first_few, three
from tats_ray.ops.measures import collapse_signs
from tats_ray.view.records import Record, sampler_start, series

Light = Literal["good", "watch", "bad", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one question."""

    question: str
    light: Light
    answer: str


def examine(
    metrics: Sequence[Record],
    bad_videos: Mapping[str, str] | None = None,
    *,
    num_visible: int,
    num_tokens: int,
) -> list[Verdict]:
    """The health of a run, most important question first.

    Args:
        bad_videos: those that could not be read, with reasons.
        num_visible, num_tokens: tokens shown, and tokens of a clip.
    """
    start = sampler_start(metrics)
    return [
        _error(metrics),
        _motion(metrics, start),
        _collapse(metrics, start, num_visible, num_tokens),
        _steps(metrics),
        _clips(metrics, bad_videos or {}),
    ]


def _error(metrics: Sequence[Record]) -> Verdict:
    question = "Did the error fall?"
    for name, what in (("eval/error", "validation error"), ("mae/loss", "training error")):
        _, values = series(metrics, name)
        if len(values) > 1 and values[0] > 0:
            fell = 1.0 - values[-1] / values[0]
            ends = f"{what} {three(values[0])} -> {three(values[-1])}"
            course = f"{ends}, {fell:.0%} less{_of_the_mean(metrics, name)}"
            if fell >= 0.2:
                return Verdict(question, "good" if _beats_the_mean(metrics) else "watch", course)
            if fell >= 0.02:
                more = "; it has left the plateau, and more epochs would help"
                return Verdict(question, "watch", course + more)
            advice = "train longer, or try another optim.base_lr, a lower one first"
            return Verdict(question, "bad", f"{ends}: still on the plateau; {advice}")
    return Verdict(question, "unknown", "measured less than twice")


def _beats_the_mean(metrics: Sequence[Record]) -> bool:
    """Under random masks or the sampler's own, as far as that was measured."""
    measured = [record for record in metrics if record.get("eval/mean_error")]
    if not measured:
        return True
    last = measured[-1]
    return min(last["eval/error"], last["eval/own_error"]) < 0.98 * last["eval/mean_error"]


def _of_the_mean(metrics: Sequence[Record], name: str) -> str:
    """The last error as a multiple, which compares across targets; `` where it is not known."""
    measured = [
        record for record in metrics if {name, "eval/mean_error", "eval/own_error"} <= record.keys()
    ]
    if not measured or measured[-1]["eval/mean_error"] <= 0:
        return ""
    last = measured[-1]
    shares = [three(last[key] / last["eval/mean_error"]) for key in (name, "eval/own_error")]
    return (
        f"; under random masks it is {shares[0]} times the error of predicting the mean, "
        f"under its own {shares[1]} times"
    )


def _motion(metrics: Sequence[Record], start: int | None) -> Verdict:
    question = "Does the sampler look at motion?"
    _, values = series(metrics, "eval/motion_ratio")
    if not values:
        return Verdict(question, "unknown", "needs validation videos with known motion")
    answer = f"a visible token is {three(values[-1])} times as likely to move as any token"
    if start is None:
        return Verdict(question, "unknown", f"{answer}; no sampler was trained")
    light: Light = "good" if values[-1] >= 1.2 else "watch" if values[-1] >= 0.95 else "bad"
    return Verdict(question, light, answer)


def _collapse(
    metrics: Sequence[Record], start: int | None, num_visible: int, num_tokens: int
) -> Verdict:
    """The signs that the learners warn of, in every measurement since the sampler joined."""
    question = "Has the sampler avoided collapse?"
    measured = [
        {name.removeprefix("eval/"): value for name, value in record.items()}
        for record in metrics
        if start is not None
        and record["step"] > start
        and math.isfinite(record.get("eval/effective_tokens", math.nan))
    ]
    if not measured:
        return Verdict(question, "unknown", "nothing was measured while the sampler trained")
    found = [
        collapse_signs(measures, num_visible=num_visible, num_tokens=num_tokens)
        for measures in measured
    ]
    if found[-1]:
        return Verdict(question, "bad", "; ".join(found[-1]))
    last = measured[-1]
    answer = f"{counted(round(last['effective_tokens']), 'token')} in play for {num_visible} shown"
    if "error_tokens" in last:
        answer += f", and {last['error_tokens']:.0f} carry the error"
    if {"clip_overlap", "draw_overlap"} <= last.keys():
        answer += (
            f"; two draws for one clip share {last['draw_overlap']:.0%} of their tokens, "
            f"different clips {last['clip_overlap']:.0%}"
        )
    if any(found):
        times = f"{sum(map(bool, found))} of {counted(len(found), 'measurement')}"
        return Verdict(question, "watch", f"{answer}; {times} showed signs of it")
    return Verdict(question, "good", answer)


def _steps(metrics: Sequence[Record]) -> Verdict:
    question = "Are the sampler's updates of a sensible size?"
    _, divergence = series(metrics, "policy/approx_kl")
    _, clipped = series(metrics, "policy/clip_fraction")
    if not divergence:
        return Verdict(question, "unknown", "no sampler was trained")
    if not any(divergence):
        return Verdict(question, "unknown", "the updates did not change the policy")
    recent = divergence[-10:]
    mean = sum(recent) / len(recent)
    answer = f"recent KL divergence {three(mean)} nats per update"
    if clipped:
        answer += f", {clipped[-1]:.0%} of the ratios clipped"
    is_clipped = bool(clipped) and clipped[-1] > 0.5
    light: Light = "bad" if mean >= 0.2 else "watch" if mean >= 0.05 or is_clipped else "good"
    return Verdict(question, light, answer + ("" if light == "good" else "; lower algorithm.lr"))


def _clips(metrics: Sequence[Record], bad_videos: Mapping[str, str]) -> Verdict:
    question = "Could all videos be read?"
    _, replaced = series(metrics, "data/replaced")
    if not replaced:
        return Verdict(question, "unknown", "not measured")
    if not sum(replaced) and not bad_videos:
        return Verdict(question, "good", "no clip had to be replaced")
    answer = f"{counted(sum(replaced), 'clip')} replaced by others"
    if bad_videos:
        answer += f"; these could not be read: {first_few(bad_videos)}; bad_videos.csv has them all"
    return Verdict(question, "watch", answer)
