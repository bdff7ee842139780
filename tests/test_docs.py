"""The sources of the docs site: they name every public name, and what they show runs."""

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import keras_nuclei

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*/*.py"))
PAGES = sorted(DOCS.glob("*.md"))
GENERATED = ("api", "pictures", "results", "tasks")

sys.path.insert(0, str(DOCS / "extensions"))
docstrings = importlib.import_module("docstrings")


@pytest.fixture(scope="module")
def pages():
    pytest.importorskip("sphinx")
    return importlib.import_module("pages")


def test_every_public_name_has_its_place_in_the_api_pages(pages):
    sources = pages.api_pages()
    for name in keras_nuclei.__all__:
        value = getattr(keras_nuclei, name)
        if not isinstance(value, ModuleType):
            assert re.search(rf"^\.\. (auto|py:)\w+:: {name}$", sources["api/index.rst"], re.M), (
                name
            )
            continue
        assert f"   {name}\n" in sources["api/index.rst"]
        for member, defined in vars(value).items():
            public = inspect.isclass(defined) or inspect.isfunction(defined)
            own = getattr(defined, "__module__", None) == value.__name__
            if public and own and not member.startswith("_"):
                assert re.search(rf"^\.\. auto\w+:: {member}$", sources[f"api/{name}.rst"], re.M)


def test_pages_of_results_are_those_of_their_files(pages):
    sources = pages.result_pages(DOCS)
    for file, block, page in (
        ("README.md", "presets", "scores"),
        ("benchmarks/README.md", "sizes", "trials"),
    ):
        text = (ROOT / file).read_text()
        table = re.search(rf"<!-- report:{block} -->\n(.*?)<!-- end -->", text, re.DOTALL)[1]
        assert table in sources[f"results/{page}.md"]
    assert "](trials.md)" in sources["results/scores.md"]
    for name in keras_nuclei.PRESETS:
        assert f"results/{name}.md" in sources
    for name in keras_nuclei.ENCODERS:
        assert f"| {name} |" in sources["results/encoders.md"]
    for page, text in sources.items():
        for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", text):
            # The folder of the page is not there before the site is built.
            target = Path(os.path.normpath((DOCS / page).parent / link))
            made = os.path.normpath(Path(page).parent / link) in sources
            assert made or link.startswith("../tasks/") or target.exists(), link


def test_reports_of_the_benchmarks_become_pages(pages, monkeypatch):
    report = {"exports": lambda: "# Exports\n\n[code](setup.cfg)\n"}
    monkeypatch.setattr(pages.report, "PAGES", report, raising=False)
    sources = pages.result_pages(DOCS)
    assert sources["results/exports.md"] == "# Exports\n\n[code](../../setup.cfg)\n"
    assert "\nexports\n" in sources["results/index.md"]


def test_a_section_that_a_page_is_made_of_must_be_there(pages):
    text = "# A\n\n## Results\n\n### Nuclei\n\nmany\n\n## Licenses\n"
    assert pages.section(text, "Results") == "# Results\n\n## Nuclei\n\nmany\n\n"
    with pytest.raises(ValueError, match="no section '## Scores'"):
        pages.section(text, "Scores")


def test_links_lead_where_they_led(pages, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "site").mkdir()
    text = "[a](b.md) ![c](folder/d.png) [e](folder) [f](https://g.org) [h](#i)"
    assert pages.relink(text, tmp_path, tmp_path / "site") == (
        "[a](../b.md) ![c](../folder/d.png) e [f](https://g.org) [h](#i)"
    )


def test_cells_of_tables(pages):
    records = [{"name": "a|b", "parameters": 1234, "any_size": True, "weights_from": ""}]
    assert pages.table(records) == [
        "| name | parameters | any size | weights from |",
        "| --- | --- | --- | --- |",
        "| a\\|b | 1,234 | yes | - |",
    ]


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        (["`segment` takes `(H, W)`."], [":py:obj:`segment` takes ``(H, W)``.", ""]),
        (["``kept`` :doc:`kept`"], ["``kept`` :doc:`kept`", ""]),
        ([">>> print('`kept`')"], [">>> print('`kept`')", ""]),
        (
            ["With a sum:", "", "    a * b", "", "More."],
            ["With a sum:", "", ".. code-block:: text", "", "    a * b", "", "More.", ""],
        ),
        (
            ["Args:", "    x: First", "        line.", "", "Returns:", "    y"],
            ["Args:", "    x: First", "        line.", "", "Returns:", "    y", ""],
        ),
        (
            ["| a | b |", "| --- | --- |", "| `c_...` | d |"],
            [
                ".. list-table::",
                "   :header-rows: 1",
                "",
                "   * - a",
                "     - b",
                "   * - ``c_...``",
                "     - d",
                "",
            ],
        ),
    ],
    ids=["code", "other roles", "example", "formula", "sections", "table"],
)
def test_docstrings_in_markdown_become_restructured_text(markdown, expected):
    assert docstrings.to_restructured_text(markdown) == expected


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_pages(path):
    """The build runs them; here: valid, named so that it does, with a title and no download."""
    assert path.name.startswith("plot_")
    assert (path.parent / "GALLERY_HEADER.rst").exists()
    text = path.read_text()
    title, underline = ast.get_docstring(ast.parse(text)).splitlines()[:2]
    assert underline == "=" * len(title)
    assert "plt.show" not in text


def test_settings_name_every_folder_of_examples():
    settings = (DOCS / "conf.py").read_text()
    for folder in {path.parent.name for path in EXAMPLES}:
        assert f'"examples/{folder}"' in settings


def test_links_between_pages_lead_somewhere():
    """A page that the build makes is one of the API, the results, or of an example."""
    examples = {f"{path.parent.name}/{path.stem}" for path in EXAMPLES}
    results = {"results/scores", "results/encoders", "results/index"}
    made = {"tasks/index", "pictures/index", "api/index"} | examples | results
    for path in EXAMPLES:
        for target in re.findall(r":doc:`[^<`]*<\.\./([\w/]+)>`", path.read_text()):
            assert target in made, (path.name, target)
    for path in PAGES:
        text = path.read_text()
        listed = re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL)
        for entry in re.findall(r"^[\w/]+$", "\n".join(listed), re.MULTILINE):
            assert entry in made or (DOCS / f"{entry}.md").exists(), (path.name, entry)
        for link in re.findall(r"(?:\]\(|\{image\} )(?!https?:|#)([^)\s]+)", text):
            generated = link.split("/")[0] in GENERATED
            assert generated or (DOCS / link).exists(), (path.name, link)


BLOCKS = [
    pytest.param(block, id=f"{path.stem}-{number}")
    for path in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_code_blocks_run(block, tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{block}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
