"""The page of `benchmarks/results/ablation.json`, for the docs site."""

from benchmarks.runs import spread

TEXT = """\
# What each choice is worth

The first network: `unet` with EfficientNet-Lite0 and its ImageNet weights, bilinear upsampling,
batch normalization and the default width. Each further row changes one thing of it.

All train for {epochs} epochs on the same {train} images of DSB2018, {size}x{size} pixels, and are
scored on the same {validation} validation images of a random split, on which predicting nothing has
the accuracy {nothing:.4f}. Scores are means of {seeds} trainings, with the lowest and the highest,
from which to judge what may be chance. So few epochs favour what learns fast, pretrained weights
above all. Time is that of a forward pass, next to the first network's, all measured in turns.

| changes | to | IoU | Dice | pixel accuracy | parameters, M | time |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

The defaults follow: `nearest` upsampling, batch normalization, the width of the first network, and
neither attention nor residual blocks. What scores higher than that takes twice the time or more.

Measured by `{command}`.
"""


def page(result: dict) -> str:
    """The page, in Markdown."""
    variants = result["variants"]
    first = variants["base"]["seconds_per_image"]
    return TEXT.format(
        epochs=result["epochs"],
        seeds=len(result["seeds"]),
        train=result["images"]["train"],
        validation=result["images"]["validation"],
        size=result["image_size"],
        nothing=result["accuracy_of_nothing"],
        rows="\n".join(row(variant, first) for variant in variants.values()),
        command=result["command"],
    )


def row(variant: dict, first_seconds: float) -> str:
    """The row of a variant; its time is next to `first_seconds`."""
    cells = [
        variant["changes"],
        variant["label"],
        spread(variant["runs"], "iou", 3),
        spread(variant["runs"], "dice", 3),
        spread(variant["runs"], "accuracy", 4),
        f"{variant['parameters'] / 1e6:.1f}",
        f"{variant['seconds_per_image'] / first_seconds:.2f}",
    ]
    return f"| {' | '.join(cells)} |"
