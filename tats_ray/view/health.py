"""Is my run healthy? One verdict per question, in words, from the metrics alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tats_ray.core.words import counted, decimal, first_few
from tats_ray.view.records import Record, sampler_start, series

Light = Literal["good", "watch", "bad", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one question."""

    question: str
    light: Light
    answer: str


def examine(
    metrics: Sequence[Record], bad_videos: Mapping[str, str] | None = None
) -> list[Verdict]:
    """The health of a run, most important question first.

    Args:
        bad_videos: those that could not be read, with reasons.
    """
    start = sampler_start(metrics)
    return [
        _error(metrics),
        _motion(metrics, start),
        _entropy(metrics, start),
        _collapse(metrics, start),
        _steps(metrics),
        _clips(metrics, bad_videos or {}),
    ]


def _error(metrics: Sequence[Record]) -> Verdict:
    question = "Did the error fall?"
    for name, what in (("eval/error", "validation error"), ("mae/loss", "training error")):
        _, values = series(metrics, name)
        if len(values) > 1:
            fell = 1.0 - values[-1] / values[0]
            ends = f"{what} {decimal(values[0], 3)} -> {decimal(values[-1], 3)}"
            course = f"{ends}, {fell:.0%} less"
            if fell >= 0.2:
                return Verdict(question, "good", course)
            if fell >= 0.02:
                more = "; it has left the plateau, and more epochs would help"
                return Verdict(question, "watch", course + more)
            advice = "train longer, or try another optim.base_lr, a lower one first"
            return Verdict(question, "bad", f"{ends}: still on the plateau; {advice}")
    return Verdict(question, "unknown", "measured less than twice")


def _motion(metrics: Sequence[Record], start: int | None) -> Verdict:
    question = "Does the sampler look at motion?"
    _, values = series(metrics, "eval/motion_ratio")
    if not values:
        return Verdict(question, "unknown", "needs validation videos with known motion")
    answer = f"a visible token is {values[-1]:.2f} times as likely to move as any token"
    if start is None:
        return Verdict(question, "unknown", f"{answer}; no sampler was trained")
    light: Light = "good" if values[-1] >= 1.2 else "watch" if values[-1] >= 0.95 else "bad"
    return Verdict(question, light, answer)


def _entropy(metrics: Sequence[Record], start: int | None) -> Verdict:
    question = "Do the masks still vary?"
    _, values = series(metrics, "eval/entropy")
    if not values:
        _, values = series(metrics, "policy/entropy")
    if not values or start is None:
        return Verdict(question, "unknown", "no sampler was trained")
    light: Light = "good" if values[-1] >= 0.7 else "watch" if values[-1] >= 0.5 else "bad"
    advice = "" if light == "good" else "; try algorithm.advantage relative or more entropy_coef"
    return Verdict(question, light, f"entropy is {values[-1]:.2f} of log N{advice}")


def _collapse(metrics: Sequence[Record], start: int | None) -> Verdict:
    """The signs that the learners warn of, over the whole time that the sampler took part."""
    question = "Has the sampler avoided collapse?"
    measured = [r for r in metrics if start is not None and r["step"] > start]
    entropy = series(measured, "eval/entropy")[1]
    overlaps = {
        what: series(measured, name)[1]
        for name, what in (
            ("eval/clip_overlap", "different clips"),
            ("eval/draw_overlap", "the same clip"),
        )
    }
    if not entropy:
        return Verdict(question, "unknown", "nothing was measured while the sampler trained")
    signs = [f"entropy fell to {min(entropy):.2f} of log N"] if min(entropy) < 0.5 else []
    signs += [
        f"up to {max(values):.0%} of the tokens drawn for {what} were the same"
        for what, values in overlaps.items()
        if values and max(values) > 0.8
    ]
    if signs:
        return Verdict(question, "bad", "; ".join(signs))
    shared = overlaps["different clips"]
    answer = f"entropy never fell below {min(entropy):.2f} of log N"
    if shared:
        answer += f"; draws of different clips shared at most {max(shared):.0%} of their tokens"
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
    answer = f"recent KL divergence {mean:.2g} nats per update"
    if clipped:
        answer += f", {clipped[-1]:.0%} of the ratios clipped"
    light: Light = "good" if mean < 0.05 else "watch" if mean < 0.2 else "bad"
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
