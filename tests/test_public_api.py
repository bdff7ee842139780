"""Every public name is documented by an example that runs; so is the README; imports stay light."""

import configparser
import doctest
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import keras_nuclei
import tfds_dsb2018

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MODULES = [
    f"{package.__name__}.{module.name}"
    for package in (keras_nuclei, tfds_dsb2018)
    for module in pkgutil.iter_modules(package.__path__)
    if module.name != "__main__"
]


def public_objects():
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        if not module_name.startswith("keras_nuclei"):
            continue
        for name, value in vars(module).items():
            own = getattr(value, "__module__", None) == module_name
            if own and not name.startswith("_") and (inspect.isclass(value) or callable(value)):
                yield pytest.param(value, id=f"{module_name}.{name}")


# Only what the package's documentation points at: not the checks that several modules share, and
# not plain records.
INTERNAL = (
    "keras_nuclei.arguments",
    "keras_nuclei.validation",
    "keras_nuclei.efficientnet_lite_weights",
    "keras_nuclei.jobs",
    "keras_nuclei.results",
    "keras_nuclei.tables",
    "keras_nuclei.tiles",
    "EncoderEntry",
    "presets.Preset",
)


@pytest.mark.parametrize("public", list(public_objects()))
def test_every_public_name_has_an_example(public):
    assert public.__doc__
    if not any(part in f"{public.__module__}.{public.__name__}" for part in INTERNAL):
        assert ">>>" in public.__doc__


PACKAGE = str(Path(keras_nuclei.__file__).parent)
# Keras calls these, and says what they take: an annotation is for the reader alone.
KERAS_METHODS = ("build", "call", "compute_output_shape", "get_config")


def signatures(public):
    """A public function, or the public methods that a class defines; with their signatures."""
    functions = vars(public) if inspect.isclass(public) else {public.__name__: public}
    for name, function in functions.items():
        function = getattr(function, "__func__", function)
        hidden = name.startswith("_") and name not in ("__init__", "__call__")
        # What named tuples, dataclasses and protocols are given has its source elsewhere.
        own = inspect.isfunction(function) and function.__code__.co_filename.startswith(PACKAGE)
        if own and not hidden and name not in KERAS_METHODS:
            yield name, inspect.signature(function)


@pytest.mark.parametrize("public", list(public_objects()))
def test_every_public_signature_says_what_it_takes_and_returns(public):
    for name, signature in signatures(public):
        for parameter in signature.parameters.values():
            if parameter.name not in ("self", "cls"):
                assert parameter.annotation is not inspect.Parameter.empty, (name, parameter)
        if name != "__init__":
            assert signature.return_annotation is not inspect.Signature.empty, name


@pytest.mark.parametrize("package", [keras_nuclei, tfds_dsb2018])
def test_type_checkers_are_told_to_read_the_types(package):
    """PEP 561: without this file they take everything for Any."""
    folder = Path(package.__file__).parent
    assert (folder / "py.typed").is_file()
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert "py.typed" in settings["options.package_data"][package.__name__].split()


@pytest.mark.parametrize("module_name", MODULES)
def test_examples_run(module_name):
    failures, _ = doctest.testmod(
        importlib.import_module(module_name), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert failures == 0


# From the parts to the whole: a module may import those before it, and any that is not named here.
ORDERS = (
    ("blocks", "encoders", "decoding", "unet", "presets", "runtimes", "segmentation", "command"),
    ("tiles", "tiling", "maps", "diameters", "segmentation"),
    ("instances", "maps"),
    ("matching", "scores", "callbacks"),
    ("export", "jobs", "tables", "results", "command"),
    ("maps", "arguments", "command"),
)


@pytest.mark.parametrize("order", ORDERS)
def test_imports_run_one_way(order):
    for place, name in enumerate(order):
        source = (ROOT / "keras_nuclei" / f"{name}.py").read_text()
        imported = re.findall(r"^\s*from keras_nuclei\.(\w+) import", source, re.M)
        for names in re.findall(r"^\s*from keras_nuclei import (.+)$", source, re.M):
            imported += names.split(", ")
        assert not set(imported) & set(order[place:]), f"{name} imports what is made of it"


def test_all_names_exist():
    for name in keras_nuclei.__all__:
        assert getattr(keras_nuclei, name) is not None


def run(code, folder, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_code_blocks_of_the_readme_run(block, tmp_path):
    result = run(block, tmp_path, TFDS_DATA_DIR=str(tmp_path))
    assert result.returncode == 0, result.stderr


def test_commands_of_the_readme_exist():
    text = README + (ROOT / "benchmarks" / "README.md").read_text()
    modules = set(
        re.findall(r"(?:python -m |`)((?:benchmarks|tfds_dsb2018)(?:\.\w+)*)\b(?!/)", text)
    )
    assert modules >= {"benchmarks", "benchmarks.report", "tfds_dsb2018"}
    for module in modules:
        spec = importlib.util.find_spec(module)
        if spec.submodule_search_locations:
            spec = importlib.util.find_spec(f"{module}.__main__")
        assert spec is not None, module


@pytest.mark.parametrize("page", ["README.md", "benchmarks/README.md", "tfds_dsb2018/README.md"])
def test_the_readmes_name_files_that_exist(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", (ROOT / page).read_text()):
        assert (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_importing_prints_nothing_and_brings_no_second_framework(backend, tmp_path):
    pytest.importorskip(backend)
    code = (
        "import sys, keras\n"
        "before = set(sys.modules)\n"
        "import keras_nuclei\n"
        "roots = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(roots & {'tensorflow', 'jax', 'torch', 'tensorflow_datasets',"
        " 'tfds_dsb2018', 'matplotlib'}))"
    )
    result = run(code, tmp_path, KERAS_BACKEND=backend)
    assert result.stdout == "[]\n", result.stderr
