"""Aggregation and figures, against loops that anyone can follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tats_ray.core.seeds import stream
from tats_ray.ops.scores import (
    confusion_matrix,
    mean_class_accuracy,
    merge_views,
    nearest_neighbour_scores,
    ranks,
)

GENERATOR = stream(0, "scores")
SCORES = torch.rand(12, 4, generator=GENERATOR).softmax(1)
VIDEO = torch.tensor([7, 7, 7, 7, 2, 2, 2, 2, 5, 5, 5, 5])
VIEW = torch.arange(4).repeat(3)


def test_scores_of_a_video_are_the_mean_over_its_views() -> None:
    videos, merged = merge_views(SCORES, VIDEO, VIEW)
    assert videos.tolist() == [2, 5, 7]
    torch.testing.assert_close(merged[0], SCORES[4:8].double().mean(0))
    torch.testing.assert_close(merged[2], SCORES[:4].double().mean(0))


def test_repeats_from_padding_and_the_order_of_rows_change_nothing() -> None:
    _, merged = merge_views(SCORES, VIDEO, VIEW)
    order = torch.randperm(12, generator=GENERATOR)
    padded = torch.cat([order, order[:5]])
    videos, again = merge_views(SCORES[padded], VIDEO[padded], VIEW[padded])
    assert torch.equal(merged, again)
    assert videos.tolist() == [2, 5, 7]
    # A mean over all rows would have counted the repeats.
    wrong = SCORES[padded][VIDEO[padded] == int(VIDEO[padded[0]])].double().mean(0)
    assert not torch.allclose(wrong, merged[videos == VIDEO[padded[0]]][0])


def test_rank_counts_the_classes_before_the_right_one() -> None:
    labels = torch.randint(4, (12,), generator=GENERATOR)
    expected = [
        sorted(range(4), key=lambda c: (-float(row[c]), c)).index(int(label))
        for row, label in zip(SCORES, labels, strict=True)
    ]
    assert ranks(SCORES, labels).tolist() == expected


def test_of_equal_scores_the_lower_class_counts_as_first() -> None:
    flat = torch.full((3, 3), 1 / 3)
    assert ranks(flat, torch.arange(3)).tolist() == [0, 1, 2]


def test_mean_class_accuracy_weighs_classes_alike_and_leaves_out_empty_ones() -> None:
    labels = torch.tensor([0, 0, 0, 0, 2, 2])
    predicted = torch.tensor([0, 0, 0, 1, 2, 3])
    confusion = confusion_matrix(predicted, labels, 4)
    assert confusion.tolist() == [[3, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]
    assert mean_class_accuracy(confusion) == pytest.approx((3 / 4 + 1 / 2) / 2)


@pytest.mark.parametrize("k", [1, 5, 30])
def test_nearest_neighbours_vote_as_in_a_plain_loop(k: int) -> None:
    query = torch.randn(9, 6, generator=GENERATOR)
    bank = torch.randn(30, 6, generator=GENERATOR)
    labels = torch.randint(3, (30,), generator=GENERATOR)
    found = nearest_neighbour_scores(query, bank, labels, num_classes=3, k=k, temperature=0.07)
    for row, scores in zip(query.double().numpy(), found.numpy(), strict=True):
        cosines = [
            (float(row @ b / np.linalg.norm(row) / np.linalg.norm(b)), -i)
            for i, b in enumerate(bank.double().numpy())
        ]
        votes = np.zeros(3)
        for cosine, place in sorted(cosines, reverse=True)[:k]:
            votes[labels[-place]] += np.exp(cosine / 0.07)
        np.testing.assert_allclose(scores, votes / votes.sum(), rtol=1e-9)


def test_a_video_in_the_bank_is_its_own_nearest_neighbour() -> None:
    bank = torch.randn(20, 6, generator=GENERATOR)
    labels = torch.arange(20)
    own = nearest_neighbour_scores(3 * bank, bank, labels, num_classes=20, k=1, temperature=0.07)
    assert own.argmax(1).tolist() == labels.tolist()
