"""The U-Net: any size, any encoder, images of 0..255; saved, reloaded, trained."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_nuclei
from keras_nuclei.blocks import UPSAMPLING_MODES, UpsampleBlock

# Each kind of pyramid: with P0 and without P5, P1 to P5, P0 to P5, without P1. That every encoder
# keeps the contract, test_encoders.py sees.
PYRAMIDS = ("plain", "efficientnet_lite0", "mobilenet_v2", "vgg16", "convnext_tiny")
if keras.backend.backend() == "jax":
    # It compiles each operation anew for each size, which takes it a minute an encoder.
    PYRAMIDS = PYRAMIDS[:2]


@pytest.fixture(scope="module")
def models():
    return {name: keras_nuclei.unet(name, encoder_weights=None) for name in PYRAMIDS}


def small_unet(**arguments):
    encoder = keras_nuclei.encoders.plain(filters=(4, 8, 8))
    return keras_nuclei.unet(encoder, **{"decoder_filters": (8, 4), **arguments})


ANY_SIZES = 2 if keras.backend.backend() == "jax" else 5


@pytest.mark.parametrize("name", PYRAMIDS)
@settings(max_examples=ANY_SIZES)
@given(height=st.integers(1, 70), width=st.integers(1, 70), batch=st.integers(1, 2))
def test_any_size(models, name, height, width, batch):
    images = np.zeros((batch, height, width, 3), "float32")
    output = models[name](images)
    assert tuple(output.shape) == (batch, height, width, 1)


@pytest.mark.parametrize("name", PYRAMIDS)
def test_a_fixed_size_gives_the_same_as_any_size(models, name, rng):
    fixed = keras_nuclei.unet(name, input_shape=(37, 50, 3), encoder_weights=None)
    fixed.set_weights(models[name].get_weights())
    images = rng.integers(0, 256, (1, 37, 50, 3), dtype="uint8")
    assert fixed.output_shape == (None, 37, 50, 1)
    np.testing.assert_allclose(
        fixed.predict(images, verbose=0), models[name].predict(images, verbose=0), atol=1e-6
    )


class BatchesOfManySizes(keras.utils.PyDataset):
    sizes = ((8, 8), (13, 9))

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        shape = (2, *self.sizes[index])
        return rng.integers(0, 256, (*shape, 3)), rng.integers(0, 2, (*shape, 1))


@pytest.mark.parametrize("upsampling", UPSAMPLING_MODES)
def test_trains_on_batches_of_many_sizes(upsampling):
    """In one compiled step, where TensorFlow does not know the height and width."""
    model = small_unet(upsampling=upsampling)
    model.compile("adam", "binary_crossentropy", metrics=[keras_nuclei.metrics.Dice()])
    history = model.fit(BatchesOfManySizes(), shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"][0])
    assert np.isfinite(history["dice"][0])


def test_uint8_and_float_images_are_one(rng):
    model = small_unet()
    images = rng.integers(0, 256, (2, 9, 7, 3), dtype="uint8")
    np.testing.assert_array_equal(
        model.predict(images, verbose=0), model.predict(images.astype("float32"), verbose=0)
    )


def test_every_skip_is_joined(rng):
    """Silence one level of the encoder, and the output changes."""
    encoder = keras_nuclei.encoders.plain(filters=(4, 8, 8))
    images = rng.integers(0, 256, (1, 16, 16, 3)).astype("float32")
    model = keras_nuclei.unet(encoder, decoder_filters=(8, 4))
    before = model.predict(images, verbose=0)
    for silent in encoder.output:
        pyramid = {
            level: features * 0 if level == silent else features
            for level, features in encoder.output.items()
        }
        other = keras_nuclei.unet(keras.Model(encoder.input, pyramid), decoder_filters=(8, 4))
        other.set_weights(model.get_weights())
        assert np.abs(other.predict(images, verbose=0) - before).max() > 1e-3, silent


def test_learns_to_see_discs():
    """Bright discs on noise; a threshold can't tell them, an overfitted U-Net can."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:24, :24]
    centres = rng.integers(6, 18, (8, 2))
    masks = np.stack([(rows - y) ** 2 + (columns - x) ** 2 < 20 for y, x in centres])[..., None]
    images = np.clip(60 * masks + rng.normal(90, 40, masks.shape), 0, 255)
    encoder = keras_nuclei.encoders.plain((None, None, 1), filters=(8, 16, 16))
    model = keras_nuclei.unet(encoder, decoder_filters=(16, 8))
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras_nuclei.losses.BinaryCrossentropyDice(),
        metrics=[keras_nuclei.metrics.Dice(), keras_nuclei.metrics.IoU()],
    )
    model.fit(images, masks.astype("uint8"), batch_size=4, epochs=40, verbose=0)
    scores = model.evaluate(images, masks.astype("uint8"), verbose=0, return_dict=True)
    assert scores["dice"] > 0.85


@pytest.mark.parametrize("name", PYRAMIDS)
def test_a_compiled_model_saves_and_loads_without_custom_objects(name, tmp_path, rng):
    model = keras_nuclei.unet(
        name, encoder_weights=None, decoder_filters=(8,) * (4 if name == "plain" else 5)
    )
    model.compile(
        "adam",
        keras_nuclei.losses.BinaryCrossentropyDice(),
        metrics=[keras_nuclei.metrics.Dice(), keras_nuclei.metrics.IoU(per_image=True)],
    )
    images = rng.integers(0, 256, (2, 33, 40, 3), dtype="uint8")
    masks = rng.integers(0, 2, (2, 33, 40, 1), dtype="uint8")
    # An optimizer that has never stepped has no state to save, and Keras warns on loading it.
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0)
    )
    assert loaded.evaluate(images, masks, verbose=0, return_dict=True) == pytest.approx(
        model.evaluate(images, masks, verbose=0, return_dict=True), abs=1e-6
    )


def test_a_loaded_model_trains_on(tmp_path, rng):
    model = small_unet()
    model.compile("adam", keras_nuclei.losses.Dice(), metrics=[keras_nuclei.metrics.Dice()])
    images = rng.integers(0, 256, (4, 9, 7, 3), dtype="uint8")
    masks = rng.integers(0, 2, (4, 9, 7, 1), dtype="uint8")
    model.fit(images, masks, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(images, masks, shuffle=False, verbose=0)
    for expected, weight in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-5)


def test_dice_the_loss_and_dice_the_metric_do_not_share_a_name(tmp_path):
    model = small_unet()
    model.compile("adam", keras_nuclei.losses.Dice(), metrics=[keras_nuclei.metrics.Dice()])
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.loss, keras_nuclei.losses.Dice)


def test_a_frozen_encoder_keeps_its_statistics_too(rng):
    model = small_unet(encoder_trainable=False)
    model.compile("adam", "binary_crossentropy")
    encoder = model.get_layer("plain")
    before = [weight.copy() for weight in encoder.get_weights()]
    model.fit(rng.integers(0, 256, (4, 8, 8, 3)), rng.integers(0, 2, (4, 8, 8, 1)), verbose=0)
    for old, new in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("decoder", ["unet", "unetplusplus"])
def test_what_is_frozen_stays_so_when_it_is_loaded(decoder, tmp_path, rng):
    """The layers within a block, and their statistics, too: none of them has moved."""
    encoder = keras_nuclei.encoders.plain(filters=(4, 8))
    build = getattr(keras_nuclei, decoder)
    model = build(encoder, decoder_filters=(4,), attention="scse", residual=True)
    model.trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    head = keras.layers.Conv2D(1, 1, activation="sigmoid")(loaded.output)
    tuned = keras.Model(loaded.input, head)
    tuned.compile("sgd", "binary_crossentropy")
    before = [weight.copy() for weight in loaded.get_weights()]
    tuned.fit(rng.integers(0, 256, (4, 8, 8, 3)), rng.integers(0, 2, (4, 8, 8, 1)), verbose=0)
    for old, new in zip(before, loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_what_the_caller_has_frozen_stays_frozen():
    encoder = keras_nuclei.encoders.plain(filters=(4, 8))
    encoder.get_layer("level_0").trainable = False
    small = keras_nuclei.unet(encoder, decoder_filters=(4,))
    assert not small.get_layer("plain").get_layer("level_0").trainable_variables
    assert small.get_layer("plain").get_layer("level_1").trainable_variables
    encoder.trainable = False
    frozen = keras_nuclei.unet(encoder, decoder_filters=(4,))
    assert not frozen.get_layer("plain").trainable_variables


def test_masks_that_keras_has_augmented_are_masks(rng):
    images = rng.integers(0, 256, (2, 16, 16, 3), dtype="uint8")
    masks = rng.integers(0, 2, (2, 16, 16, 1), dtype="uint8")
    flip = keras.layers.RandomFlip(seed=1)
    rotate = keras.layers.RandomRotation(0.2, fill_mode="constant", seed=1)
    batch = {"images": images, "segmentation_masks": masks}
    batch = rotate(flip(batch, training=True), training=True)
    model = small_unet()
    metric = keras_nuclei.metrics.Dice()
    probabilities = keras.ops.convert_to_numpy(model(batch["images"]))
    metric.update_state(batch["segmentation_masks"], probabilities)
    assert 0 <= float(metric.result()) <= 1
    loss = keras_nuclei.losses.BinaryCrossentropyDice()
    assert np.isfinite(float(loss(batch["segmentation_masks"], probabilities)))


def test_trains_under_mixed_precision(rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small_unet()
        model.compile(
            "adam",
            keras_nuclei.losses.BinaryCrossentropyDice(),
            metrics=[keras_nuclei.metrics.Dice(), keras_nuclei.metrics.IoU(per_image=True)],
        )
        images = rng.integers(0, 256, (2, 9, 7, 3), dtype="uint8")
        masks = rng.integers(0, 2, (2, 9, 7, 1), dtype="uint8")
        history = model.fit(images, masks, verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(np.isfinite(values[0]) for values in history.values())


def test_channels_last_whatever_keras_is_set_to():
    keras.config.set_image_data_format("channels_first")
    try:
        model = small_unet()
        upsamplers = [UpsampleBlock(2, mode=mode) for mode in UPSAMPLING_MODES]
    finally:
        keras.config.set_image_data_format("channels_last")
    assert tuple(model(np.zeros((1, 9, 7, 3), "float32")).shape) == (1, 9, 7, 1)
    for upsample in upsamplers:
        assert tuple(upsample(np.zeros((1, 3, 5, 4), "float32")).shape) == (1, 6, 10, 2)


def test_the_head(rng):
    images = rng.integers(0, 256, (1, 9, 8, 3)).astype("float32")
    logits = small_unet(num_classes=3, classifier_activation=None)
    softmax = small_unet(num_classes=3, classifier_activation="softmax")
    softmax.set_weights(logits.get_weights())
    expected = np.exp(logits.predict(images, verbose=0))
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(softmax.predict(images, verbose=0), expected, atol=1e-5)


def test_the_output_is_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small_unet()
    finally:
        keras.config.set_dtype_policy("float32")
    output = model(np.zeros((1, 8, 8, 3), "float32"))
    assert keras.backend.standardize_dtype(output.dtype) == "float32"


def test_several_heads_learn_by_their_names_and_come_back_from_a_file(tmp_path, rng):
    model = small_unet(heads={"foreground": 1, "flow": 2}, decoder_stride=2, decoder_filters=(8,))
    images = rng.integers(0, 256, (4, 9, 11, 3), dtype="uint8")
    targets = {
        "foreground": rng.integers(0, 2, (4, 9, 11, 1)).astype("float32"),
        "flow": rng.random((4, 9, 11, 2)).astype("float32"),
    }
    model.compile("adam", {"foreground": "binary_crossentropy", "flow": "mse"})
    history = model.fit(images, targets, epochs=3, verbose=0).history
    assert {"foreground_loss", "flow_loss"} <= history.keys()
    before = model.predict(images, verbose=0)
    assert {name: values.shape for name, values in before.items()} == {
        name: values.shape for name, values in targets.items()
    }
    model.save(tmp_path / "model.keras")
    after = keras.models.load_model(tmp_path / "model.keras").predict(images, verbose=0)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)


def test_every_head_is_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small_unet(
            heads={"foreground": 1, "distance": 1}, decoder_stride=2, decoder_filters=(8,)
        )
    finally:
        keras.config.set_dtype_policy("float32")
    outputs = model(np.zeros((1, 8, 8, 3), "float32"))
    dtypes = {keras.backend.standardize_dtype(output.dtype) for output in outputs.values()}
    assert dtypes == {"float32"}


@settings(max_examples=ANY_SIZES)
@given(height=st.integers(1, 40), width=st.integers(1, 40), stride=st.sampled_from([1, 2, 4]))
def test_a_decoder_that_ends_early_gives_an_output_of_the_images_size(height, width, stride):
    encoder = keras_nuclei.encoders.plain(filters=(4, 4, 8, 8))
    filters = (8, 6, 4)[: 4 - stride.bit_length()]
    model = keras_nuclei.unet(encoder, decoder_filters=filters, decoder_stride=stride)
    output = model(np.zeros((2, height, width, 3), "float32"))
    assert tuple(output.shape) == (2, height, width, 1)


def test_a_shallower_encoder_leaves_out_what_only_deeper_levels_need():
    whole = keras_nuclei.encoders.plain(filters=(4, 8, 8))
    model = keras_nuclei.unet(whole, encoder_depth=1, decoder_filters=(4,))
    encoder = model.get_layer(whole.name)
    assert set(encoder.output) == {"P0", "P1"}
    # By hand: two 3x3 convolutions without bias on each level, four numbers of normalization.
    first = 9 * 3 * 4 + 9 * 4 * 4 + 2 * 4 * 4
    second = 9 * 4 * 8 + 9 * 8 * 8 + 2 * 4 * 8
    assert encoder.count_params() == first + second


def test_levels_may_be_missing():
    # As in KerasHub's ResNet pyramids, which begin at P2.
    inputs = keras.Input((None, None, 2))
    x = keras.layers.Conv2D(4, 3, strides=4, padding="same")(inputs)
    pyramid = {"P2": x, "P3": keras.layers.Conv2D(8, 3, strides=2, padding="same")(x)}
    model = keras_nuclei.unet(keras.Model(inputs, pyramid))
    assert tuple(model(np.zeros((1, 13, 22, 2), "float32")).shape) == (1, 13, 22, 1)


def test_no_convolution_after_the_skip():
    model = small_unet(decoder_depth=0)
    assert not [layer.name for layer in model.layers if layer.name.startswith("decoder")]
    assert tuple(model(np.zeros((1, 5, 5, 3), "float32")).shape) == (1, 5, 5, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be .*, at least 1; got 0"),
        ({"decoder_depth": -1}, "decoder_depth must be at least 0; got -1"),
        ({"decoder_filters": (8, 8)}, r"level P4 to P0: 4; got \(8, 8\)"),
        ({"decoder_filters": 8}, "level P4 to P0: 4; got 8"),
        ({"decoder_stride": 3}, "power of two below 16.*got 3"),
        ({"decoder_stride": 16}, "power of two below 16.*got 16"),
        ({"decoder_stride": 0}, "power of two below 16.*got 0"),
        ({"encoder_depth": 5}, "has P0, P1, P2, P3, P4; got 5"),
        ({"encoder_depth": 0}, "has P0, P1, P2, P3, P4; got 0"),
        ({"heads": {}}, "such as {'foreground': 1, 'distance': 1}; got {}"),
        ({"heads": ["foreground"]}, r"must be a dict .* got \['foreground'\]"),
        ({"heads": {"foreground": 0}}, "at least 1 each"),
        ({"heads": {"foreground": 1}, "num_classes": 2}, "either heads or num_classes"),
        ({"upsampling": "cubic"}, "'cubic'"),
        ({"encoder": "vgg"}, "'vgg'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_nuclei.unet(**arguments)
