"""Serve a trained model: a page for the browser and a REST API."""

import os
import re

from omegaconf import DictConfig, OmegaConf

from boneage_pl.cli.entrypoint import run_command
from boneage_pl.cli.overrides import as_list
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.optional import require_installed

_HOST = re.compile(r"\*|(\*\.)?[^*/:\s]+|\[?[\da-fA-F:]+\]?")  # any, a name or its subdomains, IPv6
_ROOT_PATH = re.compile(r"(/[^/?#\s]+)*")


def app(config: DictConfig) -> None:
    """Check the options, load the model and serve it.

    Raises:
        BoneAgeError: an invalid option, a missing extra, or an unreadable checkpoint.
    """
    for module in ("captum", "fastapi_offline", *(["gradio"] if config.page else [])):
        require_installed(module, "the server", "app")
    token = os.environ.get("BONEAGE_TOKEN") if config.token is None else str(config.token)
    if token == "":
        raise BoneAgeError("BONEAGE_TOKEN is empty, which would allow everyone: set a token, or unset it.")
    hosts = None if config.allowed_hosts is None else as_list(config.allowed_hosts)
    for host in hosts or ():
        if not _HOST.fullmatch(host):
            raise BoneAgeError(f"allowed_hosts={host}: give names without ports, as [boneage.example.org].")
    if not _ROOT_PATH.fullmatch(config.root_path):
        raise BoneAgeError(f"root_path={config.root_path}: it must begin with / and must not end with it.")
    from boneage_pl.webapp.server import bind, serve

    bound = bind(str(config.host), config.port)  # before the model is loaded
    from boneage_pl.prediction.predictor import BoneAgePredictor  # imports torch
    from boneage_pl.webapp.service import PredictionService

    model = BoneAgePredictor.load(
        as_list(config.ckpt),
        interval_level=config.interval_level,
        tta=config.tta,
        output_dir=config.output_dir,
        trusted_config=OmegaConf.to_container(config, resolve=False),
    )
    serve(
        PredictionService(model, config.interval_level),
        bound,
        max_bytes=config.max_upload_mb << 20,
        max_images=config.max_images,
        page=config.page,
        token=token,
        root_path=config.root_path,
        allowed_hosts=hosts,
    )


if __name__ == "__main__":
    run_command(app, "app")
