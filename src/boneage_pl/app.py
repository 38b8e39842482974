"""The command that serves a trained model as a page in the browser."""

from omegaconf import DictConfig, ListConfig, OmegaConf

from boneage_pl.cli.checks import check_number
from boneage_pl.cli.entrypoint import run_command
from boneage_pl.utils.optional import require_installed
from boneage_pl.webapp.address import check_address


def app(config: DictConfig) -> None:
    """Check the options, load the model, and serve it.

    Raises:
        BoneAgeError: an option that cannot be right, an extra that is missing, or a checkpoint that cannot be
            read.
    """
    check_number("max_megabytes", config.max_megabytes, 1)
    check_number("max_pictures", config.max_pictures, 1)
    if config.port is not None:
        check_number("port", config.port, 1, below=65536)
    host = str(config.host)
    check_address(host, config.port)
    for module in ("gradio", "captum"):
        require_installed(module, "the page", "app")
    names = config.ckpt if isinstance(config.ckpt, ListConfig) else [config.ckpt]
    views = config.views
    from boneage_pl.prediction.predictor import BoneAgePredictor  # imports torch
    from boneage_pl.webapp.server import serve
    from boneage_pl.webapp.service import PredictionService

    model = BoneAgePredictor.load(
        [str(name) for name in names],
        level=config.level,
        views=list(views) if isinstance(views, ListConfig) else views,
        outputs=config.outputs,
        repeated=OmegaConf.to_container(config, resolve=False),
    )
    serve(
        PredictionService(model, config.level), host, config.port, config.max_megabytes, config.max_pictures
    )


if __name__ == "__main__":
    run_command(app, "app")
