"""Seeds, for every test."""

import keras
import numpy as np
import pytest
from hypothesis import settings

# The first call of each shape compiles, which takes longer than hypothesis expects of a test.
settings.register_profile("keras_nuclei", deadline=None, max_examples=20, derandomize=True)
settings.load_profile("keras_nuclei")


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng():
    """A generator that draws the same numbers in each test."""
    return np.random.default_rng(0)
