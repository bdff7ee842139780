"""Initial kernels of upsampling convolutions that draw no checkerboard.

A convolution that makes several pixels of one gives each of them a kernel of its own. Where those
are drawn apart, a flat area comes out as a pattern that repeats every few pixels, and training has
to undo it (Odena et al. 2016, https://doi.org/10.23915/distill.00003). Here they start out equal.
"""

import keras
from keras import initializers, ops

from keras_nuclei.typing import Config, DType, Tensor
from keras_nuclei.validation import require_at_least_one


@keras.saving.register_keras_serializable(package="keras_nuclei")
class ICNR(initializers.Initializer):
    """Kernel of a sub-pixel convolution that starts as nearest-neighbour upsampling.

    Of the `scale ** 2 * filters` output channels that become `filters` channels of
    `scale x scale` pixels each (`keras.ops.depth_to_space`), those of one such square get the same
    kernel: "initialization to convolution, nearest-neighbour resize", Aitken et al.
    2017, https://arxiv.org/abs/1707.02937.

    Args:
        scale: Side of the square, at least 1.
        initializer: Of the one kernel that all of a square get.

    Raises:
        ValueError: If `scale` is less than 1, or its square does not divide the output channels.

    Example:
        >>> import numpy as np
        >>> from keras_nuclei.initializers import ICNR
        >>> kernel = np.asarray(ICNR(2)((3, 3, 5, 4 * 2)))
        >>> all((kernel[..., 2 * i : 2 * i + 2] == kernel[..., :2]).all() for i in range(4))
        True
    """

    def __init__(self, scale: int = 2, initializer: str | initializers.Initializer = "he_normal"):
        require_at_least_one(scale=scale)
        self.scale = scale
        self.initializer = initializers.get(initializer)

    def __call__(self, shape: tuple[int, ...], dtype: DType = None) -> Tensor:
        square = self.scale**2
        if shape[-1] % square:
            raise ValueError(
                f"ICNR({self.scale}) needs a kernel whose output channels {square} divides; got "
                f"the shape {tuple(shape)}."
            )
        kernel = self.initializer((*shape[:-1], shape[-1] // square), dtype)
        return ops.tile(kernel, (1,) * (len(shape) - 1) + (square,))

    def get_config(self) -> Config:
        return {"scale": self.scale, "initializer": initializers.serialize(self.initializer)}


@keras.saving.register_keras_serializable(package="keras_nuclei")
class EvenTranspose(initializers.Initializer):
    """Kernel of a transposed convolution, kernel 4 and stride 2, that keeps a constant constant.

    Each output pixel sees two rows and two columns of the input: those at even places through the
    kernel's rows 1 and 3, those at odd places through its rows 0 and 2. A kernel `k` of 2x2
    pixels, each of its entries four times, `k[i // 2, j // 2]`, makes these the same for all.

    Args:
        initializer: Of the kernel of 2x2 pixels.

    Raises:
        ValueError: If the kernel is not one of 4x4 pixels.

    Example:
        >>> import numpy as np
        >>> from keras_nuclei.initializers import EvenTranspose
        >>> kernel = np.asarray(EvenTranspose()((4, 4, 2, 3)))
        >>> even, odd = kernel[1::2, 1::2].sum((0, 1)), kernel[::2, ::2].sum((0, 1))
        >>> np.array_equal(even, odd)
        True
    """

    def __init__(self, initializer: str | initializers.Initializer = "he_normal"):
        self.initializer = initializers.get(initializer)

    def __call__(self, shape: tuple[int, ...], dtype: DType = None) -> Tensor:
        if tuple(shape[:2]) != (4, 4):
            raise ValueError(
                "EvenTranspose makes kernels (4, 4, output channels, input channels); got the "
                f"shape {tuple(shape)}."
            )
        # Drawn as the kernel of a convolution, whose number of inputs sets the spread.
        kernel = ops.transpose(self.initializer((2, 2, shape[3], shape[2]), dtype), (0, 1, 3, 2))
        return ops.repeat(ops.repeat(kernel, 2, axis=0), 2, axis=1)

    def get_config(self) -> Config:
        return {"initializer": initializers.serialize(self.initializer)}
