"""Every metric in plain words."""

from collections.abc import Mapping

GLOSSARY: Mapping[str, str] = {
    "mae/loss": "Reconstruction error of the training clips: mean squared error of hidden tokens, "
    "each normalised to mean 0 and deviation 1 (with `model.normalize_targets: false` pixels from "
    "0 to 1). Predicting nothing gives about 0.998. It is not "
    "comparable between samplers, which hide different tokens.",
    "mae/lr": "Learning rate of the autoencoder.",
    "mae/grad_norm": "Length of the autoencoder's gradient, before clipping.",
    "env/reward": "Mean reward of a draw: what the reward function pays for the errors that a "
    "choice of visible tokens leads to.",
    "policy/loss": "What a sampler update makes small: weighted surrogate, value loss and entropy.",
    "policy/surrogate": "What the algorithm makes large: PPO's and GRPO's clipped objective, "
    "elsewhere log-probability times advantage. Its size and sign say little.",
    "policy/value_loss": "Squared error of the value network, which predicts a clip's reward.",
    "policy/clip_fraction": "Share of the probability ratios that lie outside the clip range after "
    "an update, on the clips of `policy/approx_kl`. 0 to 0.2 is usual.",
    "policy/entropy": "How evenly the sampler spreads its choice over a training clip, as a share "
    "of the most that is possible, log N. 1 is uniform; under 0.5 is collapse.",
    "policy/effective_tokens": "Number of tokens among which the sampler in effect chooses: the "
    "exponential of its entropy. Must stay over the number of visible tokens.",
    "policy/max_prob_x_n": "Probability of a clip's favourite token, in multiples of uniform.",
    "policy/approx_kl": "How far one update moved the sampler, nats: the exact divergence between "
    "the policy that drew and the one after the last optimiser step, on an eighth of that "
    "step's clips. Over 0.05 is a large step.",
    "policy/explained_variance": "How much of the differences between rewards the value network "
    "foresees: 1 is all, 0 is no better than their mean.",
    "policy/group_spread": "Deviation of the rewards of one clip's masks, mean over clips: all "
    "that GRPO and RLOO can learn from.",
    "policy/reward": "Mean reward of the rollouts of an update.",
    "policy/value": "What the value network expected of them.",
    "policy/staleness": "How many updates ago the weights were made that drew an update's oldest "
    "rollout. Never over loop.max_staleness.",
    "policy/mae_lag": "How many MAE steps old the weights were that judged an update's oldest "
    "rollout: 0 where the MAE learners make the rollouts.",
    "eval/error": "Reconstruction error of the validation clips under one fixed set of uniformly "
    "random masks: the number to compare runs by, whatever their sampler.",
    "eval/own_error": "The same clips under the sampler's own masks. A sampler that hides the "
    "hard parts raises it; one that shows them lowers it.",
    "eval/entropy": "Entropy of the sampler on validation clips, as a share of log N.",
    "eval/effective_tokens": "Tokens in play on a validation clip: the exponential of the entropy.",
    "eval/clip_overlap": "Share of visible tokens that different clips have in common. Near the "
    "share of visible tokens is healthy; near 1 the sampler ignores the clip.",
    "eval/draw_overlap": "Share of visible tokens that two draws for a clip have in common. Near 1 "
    "the sampler no longer explores.",
    "eval/motion_ratio": "How much likelier a visible token is to move than any token, where true "
    "motion is known. 1 is chance.",
    "eval/motion_auc": "Chance that a moving token is preferred to a still one of the same clip. "
    "0.5 is chance, 1 ranks all motion first.",
    "finetune/loss": "Cross-entropy of the training clips against mixed and smoothed labels.",
    "finetune/top1": "Share of the training clips named rightly, as augmented; of a mixed clip, "
    "the label that most of it is of counts.",
    "finetune/lr": "Learning rate of the classifier's head; lower layers take a share of it.",
    "finetune/grad_norm": "Length of the classifier's gradient, before clipping.",
    "val/top1": "Share of the validation videos named rightly from one centred clip. `tats test` "
    "averages several views.",
    "time/data": "Share of the time spent waiting for clips.",
    "time/mae": "Share of the time spent in the autoencoder.",
    "time/policy": "Share of the time spent drawing, and waiting for the sampler's update.",
    "time/network": "Share of the time spent in the classifier, while fine-tuning.",
    "time/wait": "The part of `time/policy` in which the MAE learner waited for the sampler's "
    "weights: what overlapping can save.",
    "time/handover": "The part of `time/policy` that handing over took: packing and pushing "
    "rollouts, or publishing the MAE for rollout workers.",
    "wait/policy": "Share of its time that the policy learner waited for rollouts.",
    "wait/workers": "Share of their time that rollout workers waited for leave to begin one.",
    "buffer/bytes": "The most that waiting rollouts held since the last record.",
    "data/clips_per_s": "Clips trained on per second, all learners together.",
    "data/replaced": "Clips that could not be read and were replaced, since the last record.",
}
"""Metric -> what it is; the report shows those that a run recorded."""
