"""Builds, times and trains one model of one library, in that library's own environment.

    python -P benchmarks/rivals_runner.py JOB.json ARRAYS.npz RESULT.json

`benchmarks.rivals` starts it. It imports NumPy and the library that the job names, nothing of this
project. All libraries get the same arrays in the same order, the same loss, optimizer and number
of threads, and their probabilities are scored by the same code.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

WARM_UP = 2  # steps that compile and allocate, off the clock
LEAST_BATCHES = 3  # what a rate is measured on, however slow the model
EPSILON = 1e-7  # of Adam: Keras's default, given to PyTorch too
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class Model(NamedTuple):
    """What the measurements need of a model, whatever the framework.

    Attributes:
        parameters: Number of all weights, trained or not.
        prepare: Images as the library's documentation wants them, from uint8, off the clock.
        train: A step on a batch of prepared images and of masks; returns the loss.
        predict: Probabilities `(n, height, width, 1)` of a batch of prepared images.
    """

    parameters: int
    prepare: Callable[[np.ndarray], np.ndarray]
    train: Callable[[np.ndarray, np.ndarray], float]
    predict: Callable[[np.ndarray], np.ndarray]


def main(job_path: str, arrays_path: str, result_path: str) -> None:
    """Do what the job says and write what came of it."""
    job = json.loads(Path(job_path).read_text())
    arrays = dict(np.load(arrays_path))
    started = time.perf_counter()
    model = BUILDERS[job["library"]](job)
    result = {"parameters": model.parameters, "build_seconds": time.perf_counter() - started}
    result |= MEASUREMENTS[job["kind"]](job, model, arrays)
    result["peak_memory_megabytes"] = peak_megabytes()
    partial = Path(result_path).with_suffix(".partial")
    partial.write_text(json.dumps({"job": job, "result": result}, indent=1) + "\n")
    partial.replace(result_path)


# -- Measurements ---------------------------------------------------------------------------------


def measure_speed(job: dict, model: Model, arrays: dict[str, np.ndarray]) -> dict:
    """Images a second of inference and of training, and the memory that inference needs."""
    size = job["batch_size"]
    images = model.prepare(arrays["train_images"])
    masks = arrays["train_masks"].astype("float32")
    starts = np.arange(0, len(images) - size + 1, size)

    def batch(index: int) -> slice:
        start = starts[index % len(starts)]
        return slice(start, start + size)

    rate, _ = rate_of(lambda index: model.predict(images[batch(index)]), job)
    memory = peak_megabytes()
    train_rate, first = rate_of(
        lambda index: model.train(images[batch(index)], masks[batch(index)]), job
    )
    return {
        "inference_images_per_second": rate,
        "train_images_per_second": train_rate,
        "first_train_step_seconds": first,
        "inference_peak_memory_megabytes": memory,
    }


def rate_of(step: Callable[[int], object], job: dict) -> tuple[float, float]:
    """Images a second of a step, and the seconds of the first one, which is not counted."""
    seconds = []
    for index in range(WARM_UP):
        started = time.perf_counter()
        step(index)
        seconds.append(time.perf_counter() - started)
    steps, started = 0, time.perf_counter()
    elapsed = 0.0
    while steps < LEAST_BATCHES or elapsed < job["speed_seconds"]:
        step(WARM_UP + steps)
        steps += 1
        elapsed = time.perf_counter() - started
    return steps * job["batch_size"] / elapsed, seconds[0]


def measure_training(job: dict, model: Model, arrays: dict[str, np.ndarray]) -> dict:
    """Train once; score after so many epochs, and after so many seconds of training.

    The clock runs during training steps only, and not during the first `WARM_UP` of them.
    """
    size = job["batch_size"]
    images = model.prepare(arrays["train_images"])
    masks = arrays["train_masks"].astype("float32")
    steps_an_epoch = len(images) // size  # what is left over would be another shape to compile
    wanted_steps = job["epochs"] * steps_an_epoch
    marks, steps, clock = {}, 0, 0.0
    while len(marks) < 2:
        epoch, position = divmod(steps, steps_an_epoch)
        if position == 0:
            # In this order for every library; the same as `pipeline.batches`.
            order = np.random.default_rng((job["seed"], epoch)).permutation(len(images))
        started = time.perf_counter()
        chosen = order[position * size : (position + 1) * size]
        loss = model.train(images[chosen], masks[chosen])
        if steps >= WARM_UP:
            clock += time.perf_counter() - started
        steps += 1
        if not np.isfinite(loss):
            raise FloatingPointError(f"The loss of step {steps} is {loss}.")
        reached = {
            "equal_time": clock >= job["seconds"],
            "equal_epochs": steps >= wanted_steps or clock >= job["limit"],
        }
        for mark in reached:
            if reached[mark] and mark not in marks:
                marks[mark] = {
                    "epochs": steps / steps_an_epoch,
                    "steps": steps,
                    "seconds": clock,
                    **score_validation(job, model, arrays),
                }
    marks["equal_epochs"]["cut"] = marks["equal_epochs"]["steps"] < wanted_steps
    return marks


def score_validation(job: dict, model: Model, arrays: dict[str, np.ndarray]) -> dict[str, float]:
    """Scores on the validation images, in batches of one size: the last one repeats an image."""
    size, count = job["batch_size"], len(arrays["validation_images"])
    indices = np.minimum(np.arange(-(-count // size) * size), count - 1)
    images = model.prepare(arrays["validation_images"])
    parts = [model.predict(images[part]) for part in indices.reshape(-1, size)]
    return score(arrays["validation_masks"], np.concatenate(parts)[:count])


def score(masks: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """IoU and Dice of the nuclei, from the pixels of all images together, at threshold 0.5.

    Args:
        masks: 0 and 1, of any shape.
        probabilities: Of the same shape.

    Returns:
        `iou`, `dice`, `accuracy`, and `accuracy_of_nothing`, that of an empty mask. Where neither
        has a nucleus, IoU and Dice are 1.

    Raises:
        ValueError: If the shapes differ.
    """
    if masks.shape != probabilities.shape:
        raise ValueError(f"Masks are {masks.shape}, probabilities {probabilities.shape}.")
    true, found = masks == 1, probabilities > 0.5
    both, either = int(np.sum(true & found)), int(np.sum(true | found))
    return {
        "iou": both / either if either else 1.0,
        "dice": 2 * both / (either + both) if either else 1.0,
        "accuracy": float(np.mean(true == found)),
        "accuracy_of_nothing": float(np.mean(~true)),
    }


def peak_megabytes() -> float:
    """Peak memory of this process; what `getrusage` says begins with its parent's."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024 / 1e6


MEASUREMENTS = {"speed": measure_speed, "training": measure_training}


# -- Keras ----------------------------------------------------------------------------------------


def seeded_keras(job: dict):
    """Keras with the threads and the seed of the job, before it has built anything."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
        tf.config.threading.set_inter_op_parallelism_threads(job["threads"])
    keras.utils.set_random_seed(job["seed"])
    return keras


def of_keras(job: dict, model, prepare: Callable[[np.ndarray], np.ndarray]) -> Model:
    """A Keras model with a sigmoid at its end, compiled as Keras does by default."""
    import keras

    momentum = job["options"].get("batch_norm_momentum")
    if momentum is not None:
        for layer in layers_within(model):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = momentum
    model.compile(
        keras.optimizers.Adam(job["learning_rate"], epsilon=EPSILON),
        "binary_crossentropy",
        jit_compile=job["options"].get("jit_compile", "auto"),
    )
    return Model(
        parameters=model.count_params(),
        prepare=prepare,
        train=lambda images, masks: float(model.train_on_batch(images, masks)),
        predict=lambda images: np.asarray(model.predict_on_batch(images)),
    )


def layers_within(model):
    """All layers of a model, those of models inside it included."""
    for layer in model.layers:
        yield layer
        yield from layers_within(layer) if hasattr(layer, "layers") else ()


def build_keras_nuclei(job: dict) -> Model:
    """Ours: values 0..255 as they are, since the model scales them itself, on the clock."""
    seeded_keras(job)
    import keras_nuclei

    arguments = dict(job["arguments"])
    arguments["input_shape"] = tuple(arguments["input_shape"])
    model = of_keras(job, keras_nuclei.unet(job["model"], **arguments), lambda images: images)
    if not job["options"].get("fused_batch_norm"):
        return model

    def train(images: np.ndarray, masks: np.ndarray) -> float:
        with keras_nuclei.fused_batch_norm():
            return model.train(images, masks)

    return model._replace(train=train)


def build_segmodels(job: dict) -> Model:
    """segmodels-keras: `Unet`, and the preprocessing that it has for the backbone."""
    seeded_keras(job)
    import segmodels_keras

    shape = (job["image_size"], job["image_size"], 3)
    model = segmodels_keras.Unet(job["model"], input_shape=shape, encoder_weights=None)
    preprocess = segmodels_keras.get_preprocessing(job["model"])
    return of_keras(job, model, lambda images: preprocess(images.astype("float32")))


def build_medicai(job: dict) -> Model:
    """The `UNet` of medicai, with images of 0..1, as its own optional rescaling makes them."""
    seeded_keras(job)
    from medicai.models import UNet

    shape = (job["image_size"], job["image_size"], 3)
    return of_keras(job, UNet(encoder_name=job["model"], input_shape=shape), to_unit)


def build_keras_unet_collection(job: dict) -> Model:
    """The `unet_2d` of keras-unet-collection, with batch normalization as all others have it."""
    seeded_keras(job)
    from keras_unet_collection import models

    model = models.unet_2d(
        (job["image_size"], job["image_size"], 3),
        n_labels=1,
        output_activation="Sigmoid",
        batch_norm=True,
        **job["arguments"],
    )
    return of_keras(job, model, to_unit)


def build_textbook(job: dict) -> Model:
    """The U-Net of Ronneberger et al. 2015 as tutorials write it: same padding, batch norm."""
    keras = seeded_keras(job)
    layers = keras.layers

    def convolve(x, filters: int):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        return x

    inputs = keras.Input((job["image_size"], job["image_size"], 3))
    x, skips = inputs, []
    for filters in (64, 128, 256, 512):
        skips.append(convolve(x, filters))
        x = layers.MaxPooling2D()(skips[-1])
    x = convolve(x, 1024)
    for filters, skip in zip((512, 256, 128, 64), reversed(skips), strict=True):
        x = layers.Conv2DTranspose(filters, 2, strides=2)(x)
        x = convolve(layers.Concatenate()([x, skip]), filters)
    outputs = layers.Conv2D(1, 1, activation="sigmoid")(x)
    return of_keras(job, keras.Model(inputs, outputs), to_unit)


def to_unit(images: np.ndarray) -> np.ndarray:
    """Images as float32 of 0..1."""
    return images.astype("float32") / 255


# -- PyTorch --------------------------------------------------------------------------------------


def build_segmentation_models_pytorch(job: dict) -> Model:
    """`Unet` of segmentation_models.pytorch: logits, and ImageNet's mean and deviation."""
    import torch

    segmentation_models_pytorch = import_smp(torch)
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    net = segmentation_models_pytorch.Unet(job["model"], encoder_weights=None)
    layout = torch.contiguous_format
    if job["options"].get("channels_last"):
        layout = torch.channels_last
    net = net.to(memory_format=layout)
    optimizer = torch.optim.Adam(net.parameters(), job["learning_rate"], eps=EPSILON)
    loss_of = torch.nn.BCEWithLogitsLoss()

    def tensor(images: np.ndarray):
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)

    def prepare(images: np.ndarray) -> np.ndarray:
        mean, deviation = np.float32(IMAGENET_MEAN), np.float32(IMAGENET_DEVIATION)
        return (to_unit(images) - mean) / deviation

    def train(images: np.ndarray, masks: np.ndarray) -> float:
        net.train()
        optimizer.zero_grad()
        loss = loss_of(net(tensor(images)), tensor(masks))
        loss.backward()
        optimizer.step()
        return loss.item()

    def predict(images: np.ndarray) -> np.ndarray:
        net.eval()
        with torch.inference_mode():
            return torch.sigmoid(net(tensor(images))).permute(0, 2, 3, 1).numpy()

    # Weights and batch-norm statistics, as Keras counts; not the counters that PyTorch adds.
    weights = [*net.parameters(), *(each for each in net.buffers() if each.ndim > 0)]
    return Model(sum(each.numel() for each in weights), prepare, train, predict)


def import_smp(torch):
    """segmentation_models_pytorch, also where torchvision is built for another kind of torch.

    torchvision's wheel wants CUDA libraries, which a CPU build of torch lacks. Its compiled
    operators then are missing, and its import fails for want of two. No U-Net runs any of them, so
    that declarations without code behind them are enough.
    """
    try:
        import segmentation_models_pytorch
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        declared = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        KEPT.append(declared)
        import segmentation_models_pytorch
    return segmentation_models_pytorch


KEPT = []
"""What PyTorch takes back once nobody holds it."""

BUILDERS = {
    "keras_nuclei": build_keras_nuclei,
    "segmodels-keras": build_segmodels,
    "medicai": build_medicai,
    "keras-unet-collection": build_keras_unet_collection,
    "textbook": build_textbook,
    "segmentation-models-pytorch": build_segmentation_models_pytorch,
}


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main(*sys.argv[1:])
