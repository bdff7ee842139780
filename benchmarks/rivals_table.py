"""The table of `benchmarks/results/rivals.json`, for the README."""

LIBRARIES = {
    "keras_nuclei": "**ours**",
    "textbook": "textbook U-Net, in Keras",
}
"""What the table calls an environment, where that is not its name."""

HEADER = (
    "| library | model | parameters, M | training, images/s | inference, images/s "
    "| peak memory, MB | IoU, equal epochs | Dice, equal epochs | epochs in equal time "
    "| IoU, equal time | Dice, equal time | pixel accuracy, equal time |"
)


def table(result: dict) -> str:
    """A row for each model, below it what was equal, and the remarks that rows refer to."""
    lines = [HEADER, "| " + " | ".join(["---"] * (HEADER.count("|") - 1)) + " |"]
    remarks = []
    for rival in result["rivals"].values():
        lines.append(row(rival, remarks))
    numbered = [f"{number}. {remark}" for number, remark in enumerate(remarks, start=1)]
    return "\n".join([*lines, "", caption(result), *numbered])


def row(rival: dict, remarks: list[str]) -> str:
    """A row; what can't be said in its cells is appended to the remarks."""

    def mark(remark: str) -> str:
        if remark not in remarks:
            remarks.append(remark)
        return f" ({remarks.index(remark) + 1})"

    model = f"`{rival['model']}`"
    if rival["weights"] != "random":
        model += f", {rival['weights']} weights"
    if rival["note"]:
        model += mark(rival["note"])
    cells = [LIBRARIES.get(rival["library"], rival["library"])]
    for error in dict.fromkeys(rival.get("errors", {}).values()):
        model += mark(f"failed: {error}")
    median, epochs, time = (rival.get(key) for key in ("median", "equal_epochs", "equal_time"))
    cells.append(model)
    cells.append(f"{rival['parameters'] / 1e6:.1f}" if median else "-")
    for key in ("train_images_per_second", "inference_images_per_second"):
        cells.append(f"{median[key]:.1f}" if median else "-")
    cells.append(f"{median['peak_memory_megabytes']:.0f}" if median else "-")
    cut = mark(f"cut after {epochs['epochs']:.2g} epochs") if epochs and epochs["cut"] else ""
    cells += [f"{epochs[key]:.3f}{cut}" if epochs else "-" for key in ("iou", "dice")]
    cells.append(f"{time['epochs']:.2g}" if time else "-")
    cells += [f"{time[key]:.3f}" if time else "-" for key in ("iou", "dice")]
    cells.append(f"{time['accuracy']:.4f}" if time else "-")
    return f"| {' | '.join(cells)} |"


def caption(result: dict) -> str:
    """What was the same for all, and the remarks' heading."""
    settings = result["settings"]
    nothing = {
        rival["equal_time"]["accuracy_of_nothing"]
        for rival in result["rivals"].values()
        if "equal_time" in rival
    }
    versions = {
        key: version
        for environment in result["environments"].values()
        for key, version in environment["versions"].items()
    }
    named = ", ".join(f"{key} {versions[key]}" for key in sorted(versions) if key != "keras-nuclei")
    return (
        f"{result['images']['train']} training and {result['images']['validation']} validation "
        f"images of {settings['image_size']}x{settings['image_size']} pixels, batches of "
        f"{settings['batch_size']}, float32, threads: {settings['threads']}; "
        f"equal epochs: {settings['epochs']}, cut after {settings['limit']:g} s; equal time: "
        f"{settings['seconds']:g} s of training steps. Scores of the validation images at "
        f"threshold 0.5, of all pixels together; predicting nothing has the pixel accuracy "
        f"{', '.join(f'{each:.4f}' for each in sorted(nothing))}. Speeds are medians; peak memory "
        f"is that of the process which trains, its imports included. {named}.\n"
    )
