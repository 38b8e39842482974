"""The command that serves a trained model as a page in the browser."""

from omegaconf import DictConfig, ListConfig, OmegaConf

from boneage_pl.cli.entrypoint import run_command
from boneage_pl.utils.optional import require_installed
from boneage_pl.webapp.address import check_address


def app(config: DictConfig) -> None:
    """Check the options, load the model, and serve it.

    Raises:
        BoneAgeError: an option that cannot be right, an extra that is missing, or a checkpoint that cannot be
            read.
    """
    host = str(config.host)
    check_address(host, config.port)
    for module in ("gradio", "captum"):
        require_installed(module, "the page", "app")
    names = config.ckpt if isinstance(config.ckpt, ListConfig) else [config.ckpt]
    from boneage_pl.prediction.predictor import BoneAgePredictor  # imports torch
    from boneage_pl.webapp.server import serve
    from boneage_pl.webapp.service import PredictionService

    model = BoneAgePredictor.load(
        [str(name) for name in names],
        interval_level=config.interval_level,
        tta=config.tta,
        output_dir=config.output_dir,
        trusted_config=OmegaConf.to_container(config, resolve=False),
    )
    serve(
        PredictionService(model, config.interval_level),
        host,
        config.port,
        config.max_upload_mb,
        config.max_images,
    )


if __name__ == "__main__":
    run_command(app, "app")
