"""The REST API over HTTP."""

import base64
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image

from boneage_pl import __version__
from tests.helpers.dicom_files import write_dicom
from tests.helpers.fork_server import Forks
from tests.helpers.trained_run import Home, home_of
from tests.stress.fuzzing import mutated, random_image
from tests.webapp.server_process import served


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Home:
    return home_of(Home, tmp_path_factory, forks)


@pytest.fixture(scope="module")
def client(home: Home) -> Iterator[httpx.Client]:
    with served(home, "page=false", "token=1234", "max_upload_mb=2", "max_images=30") as site:
        yield httpx.Client(base_url=site.url, headers={"Authorization": "Bearer 1234"}, timeout=120)


def predict(client: httpx.Client, *files: tuple[str, bytes], **fields: str) -> httpx.Response:
    accept = {"Accept": fields.pop("accept", "application/json")}
    return client.post("/api/v1/predict", files=[("files", f) for f in files], data=fields, headers=accept)


def test_predictions_are_those_of_predict(home: Home, client: httpx.Client):
    files = [(name, (home.images / name).read_bytes()) for name in ("7.png", "8.png")]
    found = predict(client, *files, ("notes.txt", b"no image"), sex="unknown").json()
    expected = [home.model().predict(str(home.images / name), "unknown") for name, _ in files]
    *items, bad = found["predictions"]
    assert (found["model"], found["interval_level"]) == ("v1", 0.9)
    for item, one in zip(items, [*expected[0], *expected[1]], strict=True):
        row = one.to_dict()
        assert item["path"] == row["path"].rpartition("/")[2]
        assert (item["sex"], item["flags"]) == (row["sex"], row["flags"])
        assert item["months"] == pytest.approx(row["months"], abs=1e-3)
        assert item["lower"] == pytest.approx(row["lower"], abs=1e-3)
    assert bad["path"] == "notes.txt"
    assert bad["months"] is None
    assert "none of PNG, JPEG" in bad["error"]


def test_age_level_and_heatmap(home: Home, client: httpx.Client):
    file = ("7.png", (home.images / "7.png").read_bytes())
    plain = predict(client, file, sex="M").json()["predictions"][0]
    options = {"chronological_age": "9 y 2 m", "interval_level": "0.5", "gradcam": "true"}
    found = predict(client, file, sex="M", **options).json()
    item = found["predictions"][0]
    assert found["interval_level"] == 0.5
    assert item["upper"] - item["lower"] < plain["upper"] - plain["lower"]
    assert item["age_difference"] == pytest.approx(item["months"] - 110)
    assert item["age_difference_sd"] is not None
    assert plain["gradcam"] is None
    assert Image.open(BytesIO(base64.b64decode(item["gradcam"]))).mode == "RGBA"
    assert Image.open(BytesIO(base64.b64decode(item["network_input"]))).mode == "L"
    dates = {"birth_date": "2014-05-30", "radiograph_date": "2023-07-30"}
    (item,) = predict(client, file, sex="M", **dates).json()["predictions"]
    assert item["chronological_age"] == pytest.approx(110, abs=0.1)


def test_dicom_gives_sex_and_structured_report(client: httpx.Client, tmp_path):
    image = np.random.default_rng(0).integers(0, 4000, (200, 160), np.uint16)
    write_dicom(tmp_path / "hand.dcm", image, PatientSex="F")
    file = ("hand.dcm", (tmp_path / "hand.dcm").read_bytes())
    (item,) = predict(client, file).json()["predictions"]
    assert item["sex"] == "F"
    assert item["chronological_age"] == pytest.approx(120, abs=0.1)
    response = predict(client, file, accept="application/dicom")
    if "out_of_distribution" in item["flags"]:  # not reported as a measurement
        assert response.status_code == 422
        assert "out_of_distribution" in response.json()["detail"]
    else:
        report = pydicom.dcmread(BytesIO(response.content))
        assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    two = predict(client, file, file, accept="application/dicom")
    assert two.status_code == 422
    png = BytesIO()
    Image.linear_gradient("L").save(png, "PNG")
    assert predict(client, ("x.png", png.getvalue()), sex="F", accept="application/dicom").status_code == 422


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sex": "X"}, "'F', 'M', 'unknown'"),
        ({"interval_level": "2"}, "interval_level"),
        ({"chronological_age": "old"}, "cannot be parsed"),
        ({"birth_date": "2014-05-30"}, "both dates"),
        ({"gradcam": "perhaps"}, "boolean"),
    ],
)
def test_invalid_fields_are_refused(home: Home, client: httpx.Client, fields: dict[str, str], words: str):
    response = predict(client, ("7.png", (home.images / "7.png").read_bytes()), **fields)
    assert response.status_code == 422
    assert words in response.text


def test_limits_and_token_hold(client: httpx.Client):
    assert predict(client, *[("x.png", b"x")] * 31).status_code == 413
    assert predict(client, ("large.png", bytes(4 << 20))).status_code == 413

    def chunks() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        for _ in range(8):
            yield bytes(1 << 20)

    head = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/api/v1/predict", content=chunks(), headers=head).status_code == 413
    assert client.post("/api/v1/predict", json={"files": []}).status_code == 415
    assert predict(client).status_code == 415
    assert client.get("/").status_code == 404  # without the page
    for header in ({}, {"Authorization": "Bearer secrets"}):
        bare = httpx.Client(base_url=client.base_url, headers=header)
        assert bare.get("/api/v1/model").status_code == 401
        assert bare.get("/healthz").text == "ok\n"
        assert bare.head("/healthz").status_code == 200
    assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 400


def test_api_describes_itself(client: httpx.Client):
    model = client.get("/api/v1/model").json()
    assert (model["version"], model["members"][0]["validation_images"]) == (__version__, 80)
    description = client.get("/openapi.json").json()
    responses = description["paths"]["/api/v1/predict"]["post"]["responses"]
    assert responses["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Predictions")
    assert {"413", "415", "422", "503"} <= set(responses)
    page = client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    metrics = client.get("/metrics").text
    assert 'boneage_request_seconds_count{path="/api/v1/model",status="200"}' in metrics
    assert "boneage_queue 0.0" in metrics


def test_concurrent_clients_get_their_own(home: Home, client: httpx.Client):
    names = [f"{n}.png" for n in range(1, 21)]
    expected = {name: home.model().predict(str(home.images / name), "F")[0].months for name in names}

    def one(name: str) -> bool:
        (item,) = predict(client, (name, (home.images / name).read_bytes()), sex="F").json()["predictions"]
        return item["path"] == name and abs(item["months"] - expected[name]) < 0.01

    with ThreadPoolExecutor(20) as people:
        assert all(people.map(one, names * 2))


def test_killed_clients_leave_nothing(client: httpx.Client):
    head = "POST /api/v1/predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer 1234\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000\r\n\r\n--x\r\n"
    for _ in range(40):  # more than the limit
        with socket.create_connection((client.base_url.host, client.base_url.port)) as cut_short:
            cut_short.sendall(head.encode() + bytes(10_000))
    until = time.monotonic() + 30
    while "boneage_queue 0.0" not in client.get("/metrics").text:
        assert time.monotonic() < until
    assert predict(client, ("notes.txt", b"no image"), sex="F").status_code == 200


@pytest.mark.slow
def test_hostile_files_are_items_with_errors(home: Home):
    draw = random.Random(7)
    good = (home.images / "7.png").read_bytes()
    with served(home, "page=false") as site:
        client = httpx.Client(base_url=site.url, timeout=120)
        for _ in range(20):  # memory in normal use
            predict(client, ("good.png", good), sex="F")
        before = site.memory()
        for n in range(200):
            suffix = draw.choice(["png", "jpg", "dcm", "tif"])
            response = predict(client, (f"{n}.{suffix}", mutated(random_image(draw), draw)), sex="F")
            (item,) = response.json()["predictions"]
            assert item["error"] or item["months"] is not None
        assert site.memory() < 1.1 * before
        assert predict(client, ("good.png", good), sex="F").json()["predictions"][0]["months"] is not None


def test_reverse_proxy_may_serve_it_under_a_path(home: Home):
    """A proxy strips the prefix, which page and API description contain."""
    with served(home, "root_path=/boneage", "allowed_hosts=127.0.0.1") as site:
        client = httpx.Client(base_url=site.url, timeout=60)
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/boneage"}]
        assert client.get("/config").json()["root"].endswith("/boneage")
        file = ("7.png", (home.images / "7.png").read_bytes())
        assert predict(client, file, sex="F").json()["predictions"][0]["months"] is not None
        assert 'path="/api/v1/predict",status="200"} 1.0' in client.get("/metrics").text
