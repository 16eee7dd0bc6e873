"""Every metric in plain words."""

from collections.abc import Mapping

GLOSSARY: Mapping[str, str] = {
    "mae/loss": "Reconstruction error of the training clips: the mean squared error over hidden "
    "tokens, each normalised to mean 0 and standard deviation 1. Predicting the mean of each token "
    "gives 1 - 1/n for tokens of n pixels. With `model.normalize_targets: false` the targets are "
    "pixels from 0 to 1. Do not compare it between samplers, because they hide different tokens.",
    "mae/lr": "Learning rate of the autoencoder.",
    "mae/grad_norm": "Norm of the autoencoder's gradient, before clipping.",
    "env/reward": "Mean reward of a draw. The reward function computes it from the reconstruction "
    "errors that a choice of visible tokens leads to.",
    "policy/loss": "The loss that a sampler update minimises: the weighted sum of surrogate, "
    "value loss and entropy.",
    "policy/surrogate": "The objective that the algorithm maximises: the clipped objective for "
    "PPO and GRPO, log-probability times advantage for the others. Its size and sign say little.",
    "policy/value_loss": "Squared error of the value network, which predicts a clip's reward.",
    "policy/clip_fraction": "Share of probability ratios outside the clip range after an update, "
    "on the same clips as `policy/approx_kl`. 0 to 0.2 is usual.",
    "policy/entropy": "Entropy of the sampler on a training clip, as a share of the maximum, log "
    "N. 1 is uniform, and 0 is sure of one token.",
    "policy/effective_tokens": "Number of tokens that the sampler effectively chooses from: the "
    "exponential of its entropy. Compare it with the tokens that carry error, `eval/error_tokens`.",
    "policy/max_prob_x_n": "Probability of a clip's most likely token, as a multiple of the "
    "uniform probability.",
    "policy/approx_kl": "How far one update moved the sampler, in nats: the exact KL divergence "
    "between the policy that drew and the policy after the last optimiser step, on an eighth of "
    "that step's clips. Over 0.05 is a large step.",
    "policy/explained_variance": "Share of the variance of the rewards that the value network "
    "predicts. 1 is all of it, and 0 is no better than predicting the mean.",
    "policy/group_spread": "Standard deviation of the rewards of one clip's masks, averaged over "
    "clips. It is all that GRPO and RLOO can learn from.",
    "policy/reward": "Mean reward of the rollouts of an update.",
    "policy/value": "Mean reward that the value network expected for these rollouts.",
    "policy/staleness": "Age, in updates, of the weights that drew the oldest rollout of an "
    "update. It never exceeds loop.max_staleness.",
    "policy/mae_lag": "Age, in MAE steps, of the weights that scored the oldest rollout of an "
    "update. It is 0 if the MAE learners produce the rollouts.",
    "eval/error": "Reconstruction error of the validation clips under one fixed set of uniformly "
    "random masks. Compare runs by this number, whatever their sampler.",
    "eval/own_error": "Reconstruction error of the same clips under the sampler's own masks. A "
    "sampler that hides the hard parts raises it, and one that shows them lowers it.",
    "eval/mean_error": "Error of predicting, at every place, the mean of the validation clips. "
    "`eval/error` divided by it compares across kinds of targets.",
    "eval/error_tokens": "Number of tokens over which the error of a validation clip is spread "
    "under random masks: the exponential of the entropy of its shares.",
    "eval/entropy": "Entropy of the sampler on validation clips, as a share of log N.",
    "eval/effective_tokens": "Number of tokens that the sampler effectively chooses from on a "
    "validation clip: the exponential of the entropy.",
    "eval/clip_overlap": "Share of visible tokens that different clips have in common. It is "
    "healthy well below `eval/draw_overlap`. Close to it, the sampler ignores the clip.",
    "eval/draw_overlap": "Share of visible tokens that two draws for one clip have in common. "
    "It is high where few tokens matter, or where the sampler no longer explores.",
    "eval/motion_ratio": "How over-represented moving tokens are among the visible ones, if the "
    "true motion is known. 1 is chance.",
    "eval/motion_auc": "Probability that the sampler prefers a moving token to a still one of the "
    "same clip. 0.5 is chance, and 1 ranks all motion first.",
    "finetune/loss": "Cross-entropy of the training clips against mixed and smoothed labels.",
    "finetune/top1": "Top-1 accuracy on the training clips, as augmented. For a mixed clip, the "
    "label with the largest share counts.",
    "finetune/lr": "Learning rate of the classifier's head. Lower layers use a fraction of it.",
    "finetune/grad_norm": "Norm of the classifier's gradient, before clipping.",
    "val/top1": "Top-1 accuracy on the validation videos, from one centred clip each. `tats test` "
    "averages several views.",
    "time/data": "Share of the time spent waiting for clips.",
    "time/mae": "Share of the time spent in the autoencoder. On a GPU, all times are those of the "
    "GPU's own clock, and `time/data` is what it waited.",
    "time/policy": "Share of the time spent drawing masks and waiting for the sampler's update.",
    "time/network": "Share of the time spent in the classifier, while fine-tuning.",
    "time/wait": "The part of `time/policy` in which the MAE learner waited for the sampler's "
    "weights. Overlapping can save this part.",
    "time/handover": "The part of `time/policy` spent on hand-over: packing and pushing rollouts, "
    "or publishing the MAE for rollout workers.",
    "wait/policy": "Share of its time that the policy learner waited for rollouts.",
    "wait/workers": "Share of their time that rollout workers waited for permission to start a "
    "rollout.",
    "buffer/bytes": "Peak size of the waiting rollouts since the last record.",
    "data/clips_per_s": "Training clips per second, summed over all learners.",
    "data/replaced": "Unreadable clips that were replaced since the last record. bad_videos.csv in "
    "the run's folder names the videos.",
}
"""Metric -> its explanation. The report shows those that a run recorded."""
