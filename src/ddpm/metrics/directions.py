"""Which values are better, the low or the high ones: said here and nowhere else."""

LOWER_IS_BETTER = ("fid", "sfid", "kid", "memorized", "nll", "rate", "rmse", "error", "kl")
HIGHER_IS_BETTER = (
    *("is", "precision", "recall", "density", "coverage", "gain", "accuracy", "cas", "modes", "within"),
    *("psnr", "ssim", "auroc", "ap", "aupro", "dice", "iou", "sensitivity", "specificity"),
)


def lower_is_better(metric_name: str) -> bool | None:
    """By the first word of names like `fid_inf_mnist_5k`; None where neither is: `is_std_...`, `nearest_ratio_...`."""
    word = metric_name.split("_")[0]
    if metric_name.startswith("is_std") or word not in LOWER_IS_BETTER + HIGHER_IS_BETTER:
        return None
    return word in LOWER_IS_BETTER
