"""Networks, losses, optimizers and the LightningModule."""
