"""What each benchmark run trains, and how."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run, but for the data, the split and the seed.

    Attributes:
        encoder: As in `keras_nuclei.unet`.
        encoder_weights: As in `keras_nuclei.unet`.
        encoder_trainable: As in `keras_nuclei.unet`.
        decoder_filters: As in `keras_nuclei.unet`.
        decoder_depth: As in `keras_nuclei.unet`.
        upsampling: As in `keras_nuclei.unet`.
        image_size: Height and width, in pixels, to which images and masks are resized.
        batch_size: Images in a training step.
        epochs: Passes over the training images, at most.
        patience: Epochs without a lower validation loss after which training stops; the weights
            of the epoch with the lowest are kept.
        learning_rate: Of Adam; the highest, where it is scheduled.
        cycle_epochs: None keeps the learning rate; else it rises for a quarter of so many epochs,
            falls to a tenth along a cosine, and stays there.
        loss: A name that Keras knows.
    """

    encoder: str
    encoder_weights: str | None
    decoder_filters: tuple[int, ...]
    decoder_depth: int = 1
    upsampling: str = "bilinear"
    encoder_trainable: bool = True
    image_size: int = 128
    batch_size: int = 16
    epochs: int = 100
    patience: int = 5
    learning_rate: float = 1e-3
    cycle_epochs: int | None = None
    loss: str = "binary_crossentropy"


CONFIGS = {
    # The upstream recipe. On 2 cores about half a minute an epoch, some 20 epochs. Expected: 0.97
    # training, 0.96 validation and test accuracy.
    #     python -m benchmarks --config reference --seed 0
    "reference": TrainConfig(
        encoder="mobilenet_v2",
        encoder_weights=None,
        decoder_filters=(256, 128, 64, 32, 16),
    ),
    # The least time to 0.96 validation accuracy. The encoder stays as ImageNet made it, so that
    # no gradient passes through it, and small batches make many steps of the first epoch. Chosen
    # on the validation set of seed 0. Expected: 0.96 after one or two epochs.
    #     python -m benchmarks.speedrun
    "fast": TrainConfig(
        encoder="efficientnet_lite0",
        encoder_weights="imagenet",
        encoder_trainable=False,
        decoder_filters=(64, 48, 32, 24, 16),
        batch_size=4,
        epochs=10,
        learning_rate=5e-3,
        cycle_epochs=1,
    ),
}
