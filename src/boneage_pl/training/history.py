"""Metrics per epoch, as rows and as CSV."""

import csv
import math
from collections.abc import Iterable
from io import StringIO
from typing import Any

COLUMNS = ["epoch", "train_mae", "val_mae", "lr"]

# COLUMNS, errors in months; `val_mae` is None for an epoch without validation
EpochMetrics = dict[str, Any]


class MetricsHistory:
    """The rows of metrics.csv so far, as a copy.

    A true `lost` marks an epoch whose weights are not saved or damaged, so that it cannot be the best.
    """

    def __init__(self, rows: Iterable[EpochMetrics] = ()) -> None:
        self.rows = [dict(row) for row in rows]

    @property
    def best(self) -> EpochMetrics | None:
        """The first epoch with the lowest validation MAE; `None` without validated epochs. NaN ranks last."""
        validated = [row for row in self.rows if row["val_mae"] is not None and not row.get("lost")]
        return min(validated, key=lambda r: (math.isnan(r["val_mae"]), r["val_mae"]), default=None)

    @property
    def ends_with_best(self) -> bool:
        """Whether the latest epoch is the best."""
        return bool(self.rows) and self.best is self.rows[-1]

    def to_csv(self) -> str:
        """Format as metrics.csv."""
        text = StringIO()
        writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    @classmethod
    def from_csv(cls, text: str) -> "MetricsHistory":
        """Parse a metrics.csv.

        Raises:
            ValueError, KeyError: invalid content.
        """
        return cls(
            {**{k: float(row[k]) if row[k] else None for k in COLUMNS}, "epoch": int(row["epoch"])}
            for row in csv.DictReader(StringIO(text))
        )
