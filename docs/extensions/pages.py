"""Write the pages that are made of something else: the API, the results, the tables.

They are made anew by every build, so that they can't differ from what they tell of.
"""

import inspect
import os
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from docstrings import to_restructured_text
from sphinx.pycode import ModuleAnalyzer

import keras_nuclei
from benchmarks import report

ROOT = Path(__file__).parent.parent.parent

MADE_OF = {
    ROOT / "README.md": "scores",
    ROOT / "benchmarks" / "README.md": "trials",
    ROOT / "tfds_dsb2018" / "README.md": "dsb2018",
}
"""Pages of results, by the files that they are made of: links to those lead to them."""


def setup(app):
    """Register with Sphinx, ahead of the gallery, whose pages link to these."""
    app.connect("builder-inited", _write, priority=100)
    return {"parallel_read_safe": True}


def _write(app):
    folder = Path(app.srcdir)
    for path, text in {**api_pages(), **result_pages(folder)}.items():
        target = folder / path
        target.parent.mkdir(exist_ok=True)
        # An unchanged page keeps its time, and Sphinx need not read it again.
        if not target.exists() or target.read_text() != text:
            target.write_text(text)


def api_pages() -> dict[str, str]:
    """Make the source of the API pages: one for the package and one for each public module."""
    names = sorted(keras_nuclei.__all__, key=str.lower)
    values = {name: getattr(keras_nuclei, name) for name in names}
    modules = {name: value for name, value in values.items() if isinstance(value, ModuleType)}
    pages = {"api/index.rst": _package_page(values, modules)}
    for name, module in modules.items():
        pages[f"api/{name}.rst"] = _module_page(module)
    return pages


def public_members(module: ModuleType) -> dict[str, list[str]]:
    """Name what is documented of a module, in the order of its source, by kind.

    Those are the classes and functions that it defines or names in `__all__`, and the constants
    that have a docstring.
    """
    named = getattr(module, "__all__", ())
    own = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (getattr(value, "__module__", None) == module.__name__ or name in named)
    }
    return {
        "classes": [name for name, value in own.items() if inspect.isclass(value)],
        "functions": [name for name, value in own.items() if inspect.isfunction(value)],
        "constants": [name for name in _documented_constants(module) if not name.startswith("_")],
    }


def _documented_constants(module: ModuleType) -> dict[str, str]:
    documents = ModuleAnalyzer.for_module(module.__name__).find_attr_docs()
    return {name: documents[owner, name][0] for owner, name in documents if owner == ""}


def _package_page(values: Mapping[str, object], modules: Mapping[str, ModuleType]) -> str:
    """Describe the package, and what it exports that is no module."""
    documents = {}
    for name, module in sorted(sys.modules.items()):
        if name.startswith("keras_nuclei."):
            documents |= _documented_constants(module)
    constants = {name: documents[name] for name in values if name.isupper()}
    functions = [name for name in values if name not in modules and name not in constants]
    lines = [
        *_heading("API reference"),
        ".. automodule:: keras_nuclei",
        "   :no-members:",
        "",
        *_heading("Modules", "-"),
        *_summary(modules),
        *_heading("Functions", "-"),
        *_summary(functions),
    ]
    for name in functions:
        kind = "class" if inspect.isclass(values[name]) else "function"
        lines += [f".. auto{kind}:: {name}", ""]
    lines += _heading("Constants", "-")
    for name, text in constants.items():
        text = "\n".join(to_restructured_text(text.splitlines()))
        lines += [f".. py:data:: {name}", "", textwrap.indent(text, "   "), ""]
    lines += [".. toctree::", "   :hidden:", "", *(f"   {name}" for name in modules), ""]
    return "\n".join(lines)


def _module_page(module: ModuleType) -> str:
    members = public_members(module)
    lines = [*_heading(module.__name__), f".. automodule:: {module.__name__}", ""]
    lines += _summary(members["classes"] + members["functions"])
    for name in members["classes"]:
        lines += [
            f".. autoclass:: {name}",
            "   :members:",
            "   :exclude-members: build, call, compute_output_shape, from_config, get_config",
            "",
        ]
    for name in members["functions"]:
        lines += [f".. autofunction:: {name}", ""]
    for name in members["constants"]:
        lines += [f".. autodata:: {name}", "   :no-value:", ""]
    return "\n".join(lines)


def _heading(text: str, mark: str = "=") -> list[str]:
    return [text, mark * len(text), ""]


def _summary(names) -> list[str]:
    lines = [".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in names), ""]
    return lines if names else []


def result_pages(folder: Path) -> dict[str, str]:
    """Make the pages of what was measured, from the files where it stands."""
    readme = (ROOT / "README.md").read_text()
    benchmarks, data_set = ROOT / "benchmarks", ROOT / "tfds_dsb2018"
    cards = sorted((ROOT / "keras_nuclei" / "weights").glob("*.md"))
    # What benchmarks.report makes for the site alone: whole pages, by name.
    reports = {name: make() for name, make in getattr(report, "PAGES", {}).items()}
    target = folder / "results"
    pages = {
        "scores": relink(section(readme, "Results"), ROOT, target),
        "trials": relink((benchmarks / "README.md").read_text(), benchmarks, target),
        "encoders": encoders_page(),
        **{name: relink(text, ROOT, target) for name, text in reports.items()},
        **{card.stem: relink(card.read_text(), card.parent, target) for card in cards},
        "dsb2018": "# The data set dsb2018\n\n"
        + relink((data_set / "README.md").read_text(), data_set, target),
        "changelog": relink((ROOT / "CHANGELOG.md").read_text(), ROOT, target),
    }
    texts = {f"results/{name}.md": text for name, text in pages.items()}
    return {"results/index.md": _results_index(list(pages)), **texts}


def section(text: str, title: str) -> str:
    """Take a section of the second level out of a Markdown text, and raise it to the first.

    Raises:
        ValueError: If there is none of that title.
    """
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise ValueError(f"README.md has no section '## {title}', of which a page is made.")
    raised = re.sub(r"^##(#+ )", r"#\1", found[1], flags=re.MULTILINE)
    return f"# {title}\n{raised}"


def relink(text: str, source: Path, target: Path) -> str:
    """Make the links of a Markdown text, relative to `source`, relative to `target`.

    A link to a folder, which a site can't show, becomes its text; one to what a page is made of
    leads to the page.
    """

    def link(match: re.Match) -> str:
        mark, label, path = match.groups()
        file = source / path
        if file.is_dir():
            return label
        if page := MADE_OF.get(Path(os.path.normpath(file))):
            return f"[{label}]({page}.md)"
        return f"{mark}[{label}]({os.path.relpath(file, target)})"

    return re.sub(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)", link, text)


def encoders_page() -> str:
    """Tabulate the encoders that `keras_nuclei.unet` takes by name."""
    records = keras_nuclei.list_encoders().to_dict("records")
    return "\n".join(
        [
            "# Encoders",
            "",
            "Names that `keras_nuclei.unet` takes as its `encoder`. Any other functional model is",
            "an encoder too: [](../tasks/plot_2_own_encoder.rst). All work on TensorFlow, JAX and",
            "Torch, but for `nasnet_mobile`, which Keras refuses on Torch.",
            "",
            *table(records),
            "",
        ]
    )


def table(records: list[dict]) -> list[str]:
    """Tabulate records of the same keys in Markdown."""
    titles = [str(key).replace("_", " ") for key in records[0]]
    lines = [titles, ["---"] * len(titles)]
    lines += [[_cell(value) for value in record.values()] for record in records]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(value) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_cell(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_cell(each) for each in value) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def _results_index(names: list[str]) -> str:
    return "\n".join(
        [
            "# Results and tables",
            "",
            "Made by the build of what the benchmarks have written, and of the package itself.",
            "",
            "```{toctree}",
            ":maxdepth: 1",
            "",
            *names,
            "```",
            "",
        ]
    )
