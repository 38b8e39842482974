# A model as a page and a REST API on the CPU, with nothing else to install:
#
#   docker build -t boneage_pl .
#   docker run --rm -p 7860:7860 -v "$PWD/v2.safetensors:/data/model.safetensors:ro" boneage_pl
#   docker run --rm --network none -v "$PWD:/data" boneage_pl boneage_pl.predict ckpt=v2.safetensors images=hands/ sex=F
#
# PyPI's PyTorch for x86 brings CUDA along, 5 GB of it; its CPU build, with pip's options for it, makes the
# image small:  docker build --build-arg PIP_ARGS='…' -t boneage_pl .
FROM python:3.11-slim AS build
ARG PIP_ARGS=""
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY conf conf
COPY src src
RUN python -m venv /opt/boneage_pl
RUN /opt/boneage_pl/bin/pip install --no-cache-dir -c constraints.txt ${PIP_ARGS} '.[app]'

FROM python:3.11-slim
COPY --from=build /opt/boneage_pl /opt/boneage_pl
RUN useradd --uid 10001 --create-home boneage
USER boneage
WORKDIR /data
EXPOSE 7860
HEALTHCHECK --start-period=60s CMD ["/opt/boneage_pl/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/healthz', timeout=5)"]
ENTRYPOINT ["/opt/boneage_pl/bin/python", "-m"]
CMD ["boneage_pl.app", "ckpt=model.safetensors", "host=0.0.0.0", "port=7860"]
