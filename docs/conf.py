"""The settings of the docs site: `python -m sphinx -W --keep-going -b html docs docs/_build`.

Nothing is fetched: what the examples show they draw, or find in a package.
"""

import os
import sys
import warnings
from pathlib import Path

# Before TensorFlow is imported, by what is documented: its notices would stand in the pages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Keras has chosen its backend by the time that an example could.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "extensions")]

import keras_nuclei  # noqa: E402

# Of Keras's own ONNX export under NumPy 2, on a page that is not about that.
warnings.filterwarnings("ignore", message="In the future `np.object`", category=FutureWarning)

project = "keras-nuclei"
copyright = "the authors of keras-nuclei, Apache-2.0"
version = release = keras_nuclei.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "pages",
    "docstrings",
]
exclude_patterns = ["_build", "examples", "sg_execution_times.rst"]
# That settings of the gallery hold no plain values, so that its pages are read anew each time.
suppress_warnings = ["config.cache"]

nitpicky = True
nitpick_ignore_regex = [
    # Other projects, whose inventories would have to be fetched.
    (r"py:.*", r"(keras|np|numpy|os|pandas|pathlib|collections|tensorflow)\..*"),
    (r"py:.*", r"(Callable|Iterator|Iterable|Sequence|Mapping|Path|KerasTensor)"),
    # Made of names in backticks: a link where there is something to link to.
    (r"py:obj", r".*"),
]

add_module_names = False
python_maximum_signature_line_length = 80
autodoc_member_order = "bysource"
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Input shape", "notes_style"), ("Output shape", "notes_style")]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

sphinx_gallery_conf = {
    "examples_dirs": ["examples/tasks", "examples/pictures"],
    "gallery_dirs": ["tasks", "pictures"],
    "filename_pattern": r"\.py$",
    # Tasks in the order in which one meets them.
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "remove_config_comments": True,
    "capture_repr": ("_repr_html_",),
    "matplotlib_animations": False,
    "reset_modules": ("matplotlib",),
    "thumbnail_size": (400, 280),
}

html_theme = "furo"
html_title = "keras-nuclei"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
