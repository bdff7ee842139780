"""The page of `benchmarks/results/exports.json`, for the docs."""

import statistics

from benchmarks.export_formats import FORMATS

HEADER = "| model | parameters, M | " + " | ".join(each.title for each in FORMATS.values()) + " |"


def page(result: dict, encoders: dict[str, int]) -> str:
    """What works with which model: a row for each, and the remarks that rows refer to.

    Args:
        result: As `benchmarks.exports` writes it.
        encoders: Numbers of parameters by name, of all encoders that there are.
    """
    models, tolerance = result["models"], result["tolerance"]
    remarks = []
    rows = [
        row(name, models.get(name), encoders[name], remarks)
        for name in sorted(encoders, key=encoders.get)
    ]
    others = [
        row(name, entry, entry.get("parameters"), remarks)
        for name, entry in models.items()
        if name not in encoders
    ]
    rule = "| " + " | ".join(["---"] * (HEADER.count("|") - 1)) + " |"
    shapes = " and ".join(f"{n} of {height}x{width}" for n, height, width in result["shapes"])
    lines = [
        "# Exports",
        "",
        "Each model was built for images of any size, exported, loaded by the runtime of the",
        f"format (on a CPU), and run on {shapes} pixels. The numbers are the largest difference of",
        "any probability from Keras's. A format works where none is larger than",
        f"{tolerance:.0e}: another order of sums in float32 makes some 1e-5 at most, a layer",
        "that is converted wrongly, or in half precision, 1e-3 and more. `fixed` means that only a",
        "model built for one height and width could be exported. Weights and statistics were",
        "random ones that use all of 0..1, but for the presets. *Not tried* is not known to work.",
        "",
        "## Encoders, in a U-Net",
        "",
        "Parameters are those of the encoder.",
        "",
        *[HEADER, rule, *rows],
        "",
    ]
    if others:
        lines += ["## Decoders and their options, and presets", "", HEADER, rule, *others, ""]
    lines += [f"{number}. {remark}" for number, remark in enumerate(remarks, start=1)]
    lines += ["", *footer(result), ""]
    return "\n".join(lines)


def row(name: str, entry: dict | None, parameters: int | None, remarks: list[str]) -> str:
    """A row; what went wrong is appended to the remarks."""
    formats = entry["formats"] if entry else {}
    cells = [f"`{name}`", f"{parameters / 1e6:.1f}" if parameters else "-"]
    cells += [cell(formats.get(each), remarks) for each in FORMATS]
    return f"| {' | '.join(cells)} |"


def cell(found: dict | None, remarks: list[str]) -> str:
    """How a format did, with the numbers of its remarks."""
    if found is None:
        return "not tried"
    marks = ""
    for error in dict.fromkeys(found.get("errors", {}).values()):
        if error not in remarks:
            remarks.append(error)
        marks += f" ({remarks.index(error) + 1})"
    if "difference" not in found:
        return f"**fails**{marks}"
    word = "yes" if found["sizes"] == "any" else "fixed"
    return f"{word}, {found['difference']:.0e}{marks}"


def footer(result: dict) -> list[str]:
    """How large the files are, and the versions."""
    ratios = []
    for name, each in FORMATS.items():
        sizes = [
            entry["formats"][name]["bytes"] / (4 * entry["parameters"])
            for entry in result["models"].values()
            if entry.get("parameters", 0) > 1e6 and "bytes" in entry["formats"].get(name, {})
        ]
        if sizes:
            ratios.append(f"{each.title} {statistics.median(sizes):.2f}")
    versions = result["environment"]
    packages = versions["packages"] | versions["runtimes"]
    named = ", ".join(f"{package} {packages[package]}" for package in sorted(packages))
    lines = [f"Made with {named}, Python {versions['python']}, by `python -m benchmarks.exports`."]
    if ratios:
        sentence = "On disk, next to the weights in float32, models above 1 M parameters take"
        lines = [f"{sentence} {', '.join(ratios)} times as much (median).", *lines]
    return lines
