"""Metrics of each epoch, as rows and as CSV."""

import csv
import math
from collections.abc import Iterable
from io import StringIO
from typing import Any

COLUMNS = ["epoch", "train_mae", "val_mae", "lr"]

EpochMetrics = dict[
    str, Any
]  # COLUMNS, errors in months; `val_mae` is None for an epoch that was not validated


class MetricsHistory:
    """The rows of metrics.csv as far as they go; `rows` is a list of its own.

    A row with a true `lost` is of an epoch that can no longer be the best: its weights could not be saved, or
    what was saved is damaged.
    """

    def __init__(self, rows: Iterable[EpochMetrics] = ()) -> None:
        self.rows = [dict(row) for row in rows]

    @property
    def best(self) -> EpochMetrics | None:
        """The validated epoch with the lowest validation MAE, the earlier of equals; `None` if there is none.

        An MAE that is not a number is above every number: such an epoch is the best only where all are so.
        """
        validated = [row for row in self.rows if row["val_mae"] is not None and not row.get("lost")]
        return min(validated, key=lambda r: (math.isnan(r["val_mae"]), r["val_mae"]), default=None)

    @property
    def ends_with_best(self) -> bool:
        """Whether the latest epoch is the best."""
        return bool(self.rows) and self.best is self.rows[-1]

    def to_csv(self) -> str:
        """Return the content of metrics.csv."""
        text = StringIO()
        writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    @classmethod
    def from_csv(cls, text: str) -> "MetricsHistory":
        """Read the content of a metrics.csv.

        Raises:
            ValueError, KeyError: it is none.
        """
        return cls(
            {**{k: float(row[k]) if row[k] else None for k in COLUMNS}, "epoch": int(row["epoch"])}
            for row in csv.DictReader(StringIO(text))
        )
