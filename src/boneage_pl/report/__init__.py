"""What came of it: statistics, figures, the written report."""
