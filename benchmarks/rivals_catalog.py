"""Whom `benchmarks.rivals` compares: environments and models, as data.

A new row is a new `Rival`. Every library has an environment of its own, with pinned versions.
"""

from dataclasses import dataclass, field

KERAS = ("tensorflow==2.21.0", "keras==3.15.1", "numpy==2.4.6")
"""What every library on Keras stands on: one version for all."""

ENVIRONMENTS = {
    # The clone that this file lies in; pip runs in its root.
    "keras_nuclei": (*KERAS, "--editable", ".[imagenet]"),
    "segmodels-keras": (*KERAS, "segmodels-keras==0.1.0.dev13"),
    "medicai": (*KERAS, "medicai==0.0.4"),
    # It imports pillow without declaring it.
    "keras-unet-collection": (*KERAS, "keras-unet-collection==0.1.13", "pillow==13.0.0"),
    "textbook": KERAS,
    "segmentation-models-pytorch": (
        "torch==2.13.0",
        # The release that goes with this torch.
        "torchvision==0.28.0",
        "numpy==2.4.6",
        "segmentation-models-pytorch==0.6.0",
    ),
}
"""Arguments of `pip install`, by the name of the environment."""


@dataclass(frozen=True)
class Rival:
    """A model that is measured.

    Attributes:
        library: A key of `ENVIRONMENTS`, and of `BUILDERS` in `benchmarks/rivals_runner.py`.
        model: Name of the encoder or of the builder, as the library has it.
        arguments: Of the library's builder.
        options: Of `benchmarks/rivals_runner.py`: `fused_batch_norm` for ours,
            `batch_norm_momentum`, `jit_compile` for models on Keras, `channels_last` for those on
            PyTorch.
        weights: Where the model begins: random, or what the weights were trained on.
        note: What a reader of the table has to know of this row.
    """

    library: str
    model: str
    arguments: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    weights: str = "random"
    note: str = ""


OUR_PIXELS = {"input_shape": [128, 128, 3]}
OURS = {"encoder_weights": None, **OUR_PIXELS}
CHANNELS_LAST = {"channels_last": True}
FUSED = {"fused_batch_norm": True}
TRAINED_FUSED = "trained in `keras_nuclei.fused_batch_norm()`"
SAME_STATISTICS = "batch-norm momentum set to 0.9, as PyTorch's default and ours; else 0.99"

RIVALS = {
    # -- MobileNetV2 --------------------------------------------------------------------------
    "ours-mobilenet_v2": Rival("keras_nuclei", "mobilenet_v2", OURS),
    "ours-mobilenet_v2-bilinear": Rival(
        "keras_nuclei",
        "mobilenet_v2",
        {**OURS, "upsampling": "bilinear"},
        note="upsampled by bilinear interpolation; the default, as that of the rivals, is nearest",
    ),
    "ours-mobilenet_v2-fused": Rival(
        "keras_nuclei", "mobilenet_v2", OURS, options=FUSED, note=TRAINED_FUSED
    ),
    "segmodels-mobilenetv2": Rival("segmodels-keras", "mobilenetv2"),
    "segmodels-mobilenetv2-momentum": Rival(
        "segmodels-keras", "mobilenetv2", options={"batch_norm_momentum": 0.9}, note=SAME_STATISTICS
    ),
    "smp-mobilenet_v2": Rival("segmentation-models-pytorch", "mobilenet_v2"),
    "smp-mobilenet_v2-channels_last": Rival(
        "segmentation-models-pytorch", "mobilenet_v2", options=CHANNELS_LAST, note="channels last"
    ),
    # -- ResNet: keras.applications has none below 50 layers -----------------------------------
    "ours-resnet50-fused": Rival(
        "keras_nuclei", "resnet50", OURS, options=FUSED, note=TRAINED_FUSED
    ),
    "segmodels-resnet50": Rival("segmodels-keras", "resnet50"),
    "smp-resnet50-channels_last": Rival(
        "segmentation-models-pytorch", "resnet50", options=CHANNELS_LAST, note="channels last"
    ),
    "segmodels-resnet34": Rival("segmodels-keras", "resnet34"),
    "medicai-resnet34": Rival("medicai", "resnet34"),
    "medicai-resnet34-momentum": Rival(
        "medicai", "resnet34", options={"batch_norm_momentum": 0.9}, note=SAME_STATISTICS
    ),
    "smp-resnet34": Rival("segmentation-models-pytorch", "resnet34"),
    "smp-resnet34-channels_last": Rival(
        "segmentation-models-pytorch", "resnet34", options=CHANNELS_LAST, note="channels last"
    ),
    # -- Convolutions and pooling, no classifier inside -----------------------------------------
    "ours-plain": Rival("keras_nuclei", "plain", OURS),
    "kuc-unet_2d": Rival(
        "keras-unet-collection", "unet_2d", {"filter_num": [32, 64, 128, 256, 512]}
    ),
    "textbook": Rival(
        "textbook", "64 to 1024 channels", note="batch-norm momentum 0.9, transposed convolutions"
    ),
    # -- Not random weights: what a user of ours would take -------------------------------------
    "ours-efficientnet_lite0-imagenet-fused": Rival(
        "keras_nuclei",
        "efficientnet_lite0",
        {"encoder_weights": "imagenet", **OUR_PIXELS},
        options=FUSED,
        weights="ImageNet",
        note=TRAINED_FUSED,
    ),
}
"""Every row, in the order of the table."""
