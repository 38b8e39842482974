"""The published learning curves beside ours, as one picture.

python -m benchmarks.curves outputs/v1/<run> outputs/v2/<run> outputs/lr_0.1_failure/<run> docs/curves.png
"""

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure

from boneage_pl.run.published import PUBLISHED

TITLES = {
    "v1": "v1: learning rate 0.01",
    "v2": "v2: from v1's weights, plateau scheduler",
    "failure": "v1 at learning rate 0.1 (published as a picture only)",
}


def main() -> None:
    """Draw the runs that the command line names."""
    *runs, target = (Path(argument) for argument in sys.argv[1:])
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, (name, title), run in zip(figure.subplots(1, 3), TITLES.items(), runs, strict=True):
        with (run / "metrics.csv").open() as file:
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        epochs = [row["epoch"] for row in rows]
        marker = "o" if len(rows) < 6 else ""
        axes.plot(epochs, [row["val_mae"] for row in rows], f"-{marker}", ms=3, label="ours, validation")
        axes.plot(epochs, [row["train_mae"] for row in rows], f":{marker}", ms=3, label="ours, training")
        points = PUBLISHED.get(name, {})
        if points:
            axes.plot(
                list(points), [v for _, v in points.values()], "ko", ms=4, label="published, validation"
            )
            axes.plot(
                list(points),
                [t for t, _ in points.values()],
                "k^",
                ms=3,
                mfc="w",
                label="published, training",
            )
        axes.set(
            title=title, xlabel="epoch", ylim=(0, 130 if name == "v1" else 80 if name == "failure" else 25)
        )
        axes.title.set_fontsize(9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.axes[0].set_ylabel("mean absolute error (months)")
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main()
