# Bone ages from radiographs on the CPU, with nothing else to install:
#
#   docker build -t boneage_pl .
#   docker run --rm --network none -v "$PWD:/data" boneage_pl ckpt=v2.safetensors images=hands/ sex=F
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
RUN /opt/boneage_pl/bin/pip install --no-cache-dir -c constraints.txt ${PIP_ARGS} '.[dicom]'

FROM python:3.11-slim
COPY --from=build /opt/boneage_pl /opt/boneage_pl
WORKDIR /data
ENTRYPOINT ["/opt/boneage_pl/bin/python", "-m", "boneage_pl.predict"]
