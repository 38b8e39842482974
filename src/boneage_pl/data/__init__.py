"""Table → groups → split → images → batches."""
