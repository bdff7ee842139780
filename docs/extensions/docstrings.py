"""Read the docstrings as they are written: Google style, with the marks of Markdown.

Napoleon reads the sections. This turns the rest into what Sphinx reads: `code` in single
backticks, formulas that stand indented between paragraphs, and tables.
"""

import re
import textwrap

NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*")
"""What could be the name of something documented, and becomes a link if it is."""


def setup(app):
    """Register with Sphinx, ahead of Napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}


def to_restructured_text(lines: list[str]) -> list[str]:
    """Turn the marks of Markdown in a docstring into those of reStructuredText."""
    blocks = []
    for block in _blocks(lines):
        if block[0].lstrip().startswith("|"):
            blocks.append(_table(block))
        elif blocks and _is_formula(block, blocks[-1]):
            indent = _indent(block)[: -len("    ")]
            blocks.append([f"{indent}.. code-block:: text", "", *block])
        else:
            # A blank line ends a list of Markdown only where the list's lines are not alike.
            blocks.append(_backticks(block))
    return [line for block in blocks for line in [*block, ""]]


def _process(app, what, name, obj, options, lines):
    lines[:] = to_restructured_text(lines)


def _skip(app, what, name, obj, skip, options):
    """Leave the fields of named tuples out: their class describes them."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def _blocks(lines: list[str]) -> list[list[str]]:
    """Split at blank lines."""
    text = "\n".join(line.rstrip() for line in lines).strip("\n")
    return [block.strip("\n").split("\n") for block in re.split(r"\n{2,}", text) if block]


def _indent(block: list[str]) -> str:
    return min((re.match(" *", line)[0] for line in block), key=len)


def _is_formula(block: list[str], previous: list[str]) -> bool:
    """Whether a block stands deeper than what is before it, and is no example."""
    if block[0].lstrip().startswith((">>>", "-", "..")):
        return False
    return len(_indent(block)) >= len(_indent(previous[-1:])) + len("    ")


def _backticks(block: list[str]) -> list[str]:
    """Turn `code` into a link to what it names or else into ``code``, but for examples."""
    prose = next(
        (index for index, line in enumerate(block) if line.lstrip().startswith(">>>")), len(block)
    )
    text = re.sub(r"(?<![`:])`([^`]+)`(?!`)", _code, "\n".join(block[:prose]))
    return text.split("\n") * (prose > 0) + block[prose:]


def _code(match: re.Match) -> str:
    code = match[1]
    return f":py:obj:`{code}`" if NAME.fullmatch(code) else f"``{code}``"


def _table(block: list[str]) -> list[str]:
    """Turn a table of Markdown, whose second line is dashes, into a list-table."""
    indent = _indent(block)
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        for line in (block[0], *block[2:])
    ]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        for number, cell in enumerate(row):
            lines.append(f"   {'*' if number == 0 else ' '} - {cell}")
    return textwrap.indent("\n".join(_backticks(lines)), indent).split("\n")
