"""The tables that benchmark.py prints: a function for each of its results."""

from math import nan

from tabulate import tabulate

RATES = ("seconds", "images_per_second", "steady_images_per_second")  # of predict.py --ray


def print_evaluation(result: dict) -> None:
    """Print the rows of the benchmark of metrics."""
    header = ["images", "seconds", "images/s", "ms/image", "peak memory, MiB"]
    body = [
        (
            row["images"],
            spread(row, "seconds"),
            f"{row['images_per_second']:.1f}",
            f"{1000 * row['seconds_per_image']:.1f}",
            f"{row['peak_memory_bytes'] / 2**20:.0f}",
        )
        for row in result["rows"]
    ]
    print_table(header, body)


def print_thresholds(result: dict) -> None:
    """Print promised and found false alarms, in percent, of splits and of good test images."""
    header = ["", "of", "good images", "rate", "promised", "found (5 to 95 %)", "plain quantile"]
    body = [
        (
            *(row["category"], row["how"], row["good_images"]),
            *(f"{100 * row[name]:.1f}" for name in ("rate", "promised")),
            f"{100 * row['found']:.1f} ± {100 * row['found_error']:.1f} "
            f"({100 * row['found_5']:.0f} to {100 * row['found_95']:.0f})",
            f"{100 * row['plain_quantile']:.1f}",
        )
        for row in result["splits"]
    ]
    print_table(header, body)
    body = [
        (
            *(row["category"], row["good_images"]),
            *(f"{100 * row[name]:.1f}" for name in ("rate", "promised")),
            f"{row['alarms']} of {row['test_images']}",
            f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
        )
        for row in result["tests"]
    ]
    print()
    print_table(["", "good images", "rate", "promised", "alarms", "95 % interval"], body)


def print_networks(result: dict) -> None:
    """Print the rows of a benchmark of networks: ours, and the published way below it."""
    unit = "step" if result["benchmark"] == "train" else "image"
    header = ["", "batch", f"ms/{unit}", "images/s", "of matmul", "peak, MiB", "times as fast"]
    body = []
    for row in result.get("rows", [result]):
        share, memory = f"{row['share_of_matmul']:.0%}", f"{row['peak_memory_bytes'] / 2**20:.0f}"
        rate = f"{row['images_per_second']:.2f}"
        ours = ["ours", row["batch_size"], timing(row, unit), rate, share, memory]
        if "published" in row:
            ours.append(spread(row, "ratio"))
            theirs = ["published", row["batch_size"], timing(row["published"], unit)]
        body += [ours, theirs] if "published" in row else [ours]
    print_table(header[: len(body[0])], body)


def timing(row: dict, unit: str) -> str:
    """Return a median with its spread, in milliseconds."""
    names = ("", "_min", "_max")
    median, least, most = (1000 * row[f"seconds_per_{unit}{name}"] for name in names)
    return f"{median:.1f} ({least:.1f}-{most:.1f})"


def print_cluster(result: dict) -> None:
    """Print how fast a cluster's scorers are, beside so many times one, and what they hold."""
    header = ["", "seconds", "images/s", "steady", "of 1 scorer's", "steady", "MiB", "scorer's MiB"]
    body = [
        (
            row["what"],
            *(spread(row, name) for name in RATES),
            *(f"{row.get(f'share_of_{name}', nan):.0%}" for name in RATES[1:]),
            *(f"{row[f'peak_{whose}memory_bytes'] / 2**20:.0f}" for whose in ("", "scorer_")),
        )
        for row in result["rows"]
    ]
    print_table(header, body)


def print_prediction(result: dict) -> None:
    """Print what predict.py achieves of the bare network's rate, its start, its memory."""
    header = ["", "images/s", "of the network", "core-ms/image"]
    body = [
        (
            row["what"],
            spread(row, "images_per_second"),
            f"{row['share_of_network']:.0%}",
            f"{1000 * row['core_seconds_per_image']:.1f}",
        )
        for row in result["rows"]
    ]
    most = result["possible"]
    body.append(
        ("possible", f"{most['images_per_second']:.2f}", f"{most['share_of_network']:.0%}", "")
    )
    print_table(header, body)
    names = {
        "first_result": "first result",
        "import_torch": "of that torch",
        "import_ours": "imports beside",
    }
    body = [(text, spread(result[name], "seconds")) for name, text in names.items()]
    print()
    print_table(["", "seconds"], body)
    body = [(row["images"], f"{row['peak_memory_bytes'] / 2**20:.0f}") for row in result["memory"]]
    print()
    print_table(["images", "peak memory, MiB"], body)


def print_deployment(result: dict) -> None:
    """Print a table for each detector, a row for each way to score by it."""
    header = ["", "ms/image", "times torch bf16", "times published", "of matmul", "MB"]
    header += ["first result, s", "peak, MiB", "score off by", "other verdicts"]
    header += ["AUROC", "AUROC off by"]
    detectors: dict[str, list[tuple]] = {}
    for row in result["rows"]:
        line = [row["what"], timing(row, "image")]
        line += [spread(row, name) for name in ("times_torch_bf16", "times_published")]
        line.append(f"{row['share_of_matmul']:.0%}")
        if "file_bytes" in row:
            line += [f"{row['file_bytes'] / 1e6:.1f}", spread(row, "first_result_seconds")]
            line += [f"{row['peak_memory_bytes'] / 2**20:.0f}", f"{row['score_differs_by']:.2g}"]
            line.append(str(row["other_verdicts"]))
            aurocs = row["auroc"], row["auroc_differs_by"]
            line += ["-" if own is None else f"{100 * own:.1f}" for own in aurocs]
        name = f"{row['model_size']}, {row['experts']}"
        detectors.setdefault(name, []).append((*line, *[""] * (len(header) - len(line))))
    for name, body in detectors.items():
        print(f"\n{name}")
        print_table(header, body)


def print_report(result: dict) -> None:
    """Print how long a page takes to write and to open, and its size."""
    header = ["images", "seconds to write", "seconds to open", "MB"]
    times = [spread(result, name) for name in ("seconds_to_write", "seconds_to_open")]
    size = f"{result['page_bytes'] / 1e6:.1f}"
    print_table(header, [(result["settings"]["images"], *times, size)])


def print_sweep(result: dict) -> None:
    """Print what a sweep takes once, and what it adds to each training."""
    run = result["settings"]["run_seconds"] // 60
    header = ["", "s to begin and end", "s/task", "s added", f"of a run of {run} minutes"]
    names = ("seconds_to_begin_and_end", "seconds_per_task", "added_seconds_per_task")
    body = [
        (row["what"], *(spread(row, name) for name in names), f"{row['share_of_run']:.2%}")
        for row in result["rows"]
    ]
    print_table(header, body)
    if result["seconds_per_beat"]:
        print(f"\n{1000 * result['seconds_per_beat']:.2f} ms for a training to tell how far it is")


def spread(row: dict, name: str) -> str:
    """Return a median with its spread."""
    return f"{row[name]:.2f} ({row[f'{name}_min']:.2f}-{row[f'{name}_max']:.2f})"


def print_table(header: list[str], body: list[tuple]) -> None:
    """Print a table of texts."""
    print(tabulate(body, header, colalign=("right",) * len(header), disable_numparse=True))
