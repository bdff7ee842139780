"""Freezing of layers that are made of layers."""

import keras


def freeze_within(layer: keras.layers.Layer) -> None:
    """Freeze the layers within one that is frozen; for the end of its `build`.

    Those are made trainable, whatever `trainable` it was given, as when a frozen model is loaded.
    Their batch normalization would then go on to move its statistics.

    Args:
        layer: A layer whose own layers are all made. One that is trainable is left alone.

    Example:
        >>> from keras_nuclei.blocks import ConvBlock
        >>> block = ConvBlock(4, trainable=False)
        >>> block.build((None, 8, 8, 3))  # calls it
        >>> block.normalizations[0].trainable
        False
    """
    if not layer.trainable:
        # On TensorFlow, setting what is set already would do nothing.
        layer.trainable = True
        layer.trainable = False
