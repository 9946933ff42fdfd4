"""The server: a real one with real clients, and the application alone where time matters."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import draw_portrait

httpx = pytest.importorskip("httpx")
for name in ("fastapi", "uvicorn", "multipart", "prometheus_client", "onnxruntime"):
    pytest.importorskip(name)

import predict  # noqa: E402
from portraitnet.__main__ import parse_args  # noqa: E402
from portraitnet.server import __main__ as command  # noqa: E402
from portraitnet.server.answers import Answer  # noqa: E402
from portraitnet.server.app import make_app  # noqa: E402
from portraitnet.server.workers import RefusedError, Workers  # noqa: E402

ROOT = Path(__file__).parent.parent
PORTRAIT = ROOT / "examples" / "portrait.jpg"
KEY = "a secret key"


class Server:
    """A server of its own process, in an empty folder, on a free port."""

    def __init__(self, folder, *flags):
        folder.mkdir()
        self.folder = folder
        env = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "apps.server", "--port", "0", *flags],
            cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        line = self.process.stdout.readline()
        assert "/docs shows the API" in line, self.process.stderr.read()
        self.address = line.split("/docs")[0]
        self.client = httpx.Client(base_url=self.address, timeout=60)

    def workers(self):
        """Numbers of the processes with a network."""
        done = subprocess.run(
            ["pgrep", "-P", str(self.process.pid), "-f", "spawn_main"],
            capture_output=True, text=True,
        )  # fmt: skip
        return list(map(int, done.stdout.split()))

    def stop(self, number=signal.SIGTERM):
        """(exit code, the rest of stdout, stderr)."""
        self.process.send_signal(number)
        out, errors = self.process.communicate(timeout=60)
        return self.process.returncode, out, errors


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server") / "cwd", "--workers", "2", "--api_key", KEY)
    server.client.headers["Authorization"] = f"Bearer {KEY}"
    yield server
    code, out, errors = server.stop()
    assert (code, out, errors) == (0, "", ""), "it logged something"
    assert not list(server.folder.iterdir()), "it stored something"


def post(server, path, photo=PORTRAIT, name=None, **fields):
    """Send a photo as a form."""
    data = photo if isinstance(photo, bytes) else photo.read_bytes()
    return server.client.post(path, files={"file": (name or "portrait.jpg", data)}, data=fields)


def picture(response):
    assert response.status_code == 200, response.text
    return cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(
    "mode, flags",
    [
        ("overlay", {}),
        ("mask", {"refine": "false"}),
        ("cutout", {"matting": "none"}),
        ("replace", {"background": "#102030"}),
        ("blur", {"blur": "1.5"}),
        ("grey", {"refine": "true"}),
    ],
)
def test_each_effect_is_that_of_predict(server, tmp_path, mode, flags):
    words = {"true": "--refine", "false": "--no-refine"}
    words = [words.get(value, f"--{name}={value}") for name, value in flags.items()]
    path = tmp_path / "a.png"
    assert predict.main([str(PORTRAIT), "-o", str(path), "--mode", mode, *words]) == 0
    as_form = post(server, f"/v1/{mode}", **flags)
    as_body = server.client.post(f"/v1/{mode}", params=flags, content=PORTRAIT.read_bytes())
    assert as_form.headers["content-type"] == "image/png" and float(as_form.headers["x-person"]) > 0
    assert as_form.content == as_body.content == path.read_bytes()


def test_a_background_comes_as_a_file(server):
    blue = cv2.imencode(".png", np.full((5, 7, 3), (200, 0, 0), np.uint8))[1].tobytes()
    files = {"file": PORTRAIT.read_bytes(), "background": blue}
    with_photo = server.client.post("/v1/replace", files=files)
    with_color = post(server, "/v1/replace", background="#0000c8")
    assert np.array_equal(picture(with_photo), picture(with_color))
    refused = server.client.post("/v1/cutout", files=files)
    assert "--background: has an effect with --mode replace alone" in refused.json()["detail"]
    broken = server.client.post("/v1/replace", files=files | {"background": b"no photo"})
    assert broken.json()["detail"].startswith("background is not a readable picture")


def test_the_facts_are_those_of_the_mask(server):
    mask = picture(post(server, "/v1/mask"))
    facts = post(server, "/v1/mask", format="json").json()
    assert facts["person"] == pytest.approx((mask > 0).mean(), abs=1e-4)
    x, y, width, height = cv2.boundingRect(mask)
    assert facts["box"] == {"top": y, "left": x, "height": height, "width": width}
    assert facts["milliseconds"] > 0
    nobody = cv2.imencode(".png", np.full((90, 90, 3), 200, np.uint8))[1].tobytes()
    assert post(server, "/v1/cutout", nobody, format="json").json() | {"milliseconds": 0} == {
        "person": 0.0, "box": None, "milliseconds": 0,
    }  # fmt: skip


STARTS = {"webp": b"RIFF", "jpeg": b"\xff\xd8", "png": b"\x89PNG"}


@pytest.mark.parametrize("form", STARTS)
def test_the_format_is_asked_for_by_parameter_or_header(server, form):
    by_parameter = post(server, "/v1/blur", format=form)
    accept = {"Accept": f"text/html, image/{form};q=0.9, */*"}
    by_header = server.client.post("/v1/blur", content=PORTRAIT.read_bytes(), headers=accept)
    for response in (by_parameter, by_header):
        assert response.headers["content-type"] == f"image/{form}"
        assert response.content.startswith(STARTS[form])


def problem(response, status):
    """The sentence of an answer with this status; see RFC 9457."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    facts = response.json()
    assert facts["type"] == "about:blank" and facts["status"] == status
    assert facts["title"] not in ("", "Error"), "each status has a title of its own"
    return facts["detail"]


def bad_files():
    png = cv2.imencode(".png", draw_portrait(np.random.default_rng(0), 40, 50)[0])[1].tobytes()
    huge = bytearray(png)
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    return {
        "empty.jpg": b"",
        "text.jpg": b"no picture",
        "cut.png": png[: len(png) // 2],
        "huge.png": bytes(huge),
        "фото.gif": b"GIF89a" + bytes(30),
        "old.heic": b"\0\0\0\x18ftypheic" + bytes(30),
        "many.png": b"\x89PNG\r\n\x1a\n" + png[8:30],
    }


@pytest.mark.parametrize("name", bad_files())
def test_what_predict_refuses_is_refused_in_the_same_sentence(
    server, name, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(bad_files()[name])
    pixels = ["--max_pixels", str(command.MAX_PIXELS)]
    assert predict.main([name, "-o", "a.png", *pixels]) == 1
    sentence = problem(post(server, "/v1/cutout", Path(name), name), 422)
    assert f"predict.py: {sentence}" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    "mode, fields",
    [
        ("blur", {"blur": "-3"}),
        ("blur", {"blur": "nan"}),
        ("cutout", {"blur": "3"}),
        ("cutout", {"matting": "best"}),
        ("mask", {"matting": "hair"}),
        ("cutout", {"matting": "hair", "refine": "false"}),
        ("cutout", {"background": "red"}),
        ("cutout", {"colour": "red"}),
    ],
)
def test_parameters_are_refused_in_predicts_sentence(server, mode, fields, capsys):
    words = {"false": "--no-refine"}
    words = [words.get(value, f"--{name}={value}") for name, value in fields.items()]
    with pytest.raises(SystemExit):
        parse_args(["-", "--mode", mode, *words])
    sentence = problem(post(server, f"/v1/{mode}", **fields), 422)
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: {sentence}")


def test_no_file_of_the_server_is_read_and_no_address_fetched(server):
    for text in (str(PORTRAIT), "/etc/passwd", "http://127.0.0.1/a.png", "file:///etc/passwd"):
        sentence = problem(post(server, "/v1/replace", background=text), 422)
        assert sentence.startswith(f"The background {text} is neither a colour nor a part with a")
        assert "send a photo by -F background=@beach.jpg" in sentence
    sentence = problem(server.client.get("/api/remove", params={"url": "http://x/"}), 405)
    assert "no URL is fetched" in sentence
    assert "such as" not in problem(post(server, "/v1/cutout", output="x.png"), 422)


def test_other_refusals_say_what_to_do(server):
    client, photo = server.client, PORTRAIT.read_bytes()
    assert "POST a photo to /v1/overlay" in problem(client.get("/v2"), 404)
    assert "POST a photo to /v1/overlay" in problem(client.post("/v1/hat", content=photo), 404)
    assert "photos are sent by POST" in problem(client.get("/v1/cutout"), 405)
    form = {"content-type": "multipart/form-data; boundary=x"}
    damaged = client.post("/v1/cutout", content=b"--y", headers=form)
    assert "send the photo" in problem(damaged, 422 if "no photo" in damaged.text else 400)
    named = problem(client.post("/v1/cutout", files={"image": photo}), 422)
    assert 'call the photo "file".' in named
    as_text = client.post("/v1/cutout", files={"file": (None, "a")})
    assert 'as the part "file".' in problem(as_text, 422)
    twice = client.post("/v1/cutout", files=[("file", photo), ("file", photo)])
    assert '"file" is there more than once: send one.' in problem(twice, 422)
    twice = client.post("/v1/blur?blur=1&blur=2", content=photo)
    assert '"blur" is there more than once' in problem(twice, 422)
    large = cv2.imencode(".png", np.zeros((7200, 7200), np.uint8))[1].tobytes()
    sentence = problem(client.post("/v1/cutout", content=large), 422)
    assert "raise the limit (--max_pixels of predict.py and of the server)" in sentence
    assert "--format: invalid choice" in problem(post(server, "/v1/blur", format="tiff"), 422)
    sentence = problem(post(server, "/v1/cutout", format="jpeg"), 422)
    assert "cannot hold a transparent background" in sentence


def test_a_wrong_key_is_refused(server):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": KEY + "x"}):
        response = httpx.post(server.address + "/v1/cutout", headers=headers, content=b"x")
        assert "API key" in problem(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
        assert problem(httpx.get(server.address + "/metrics", headers=headers), 401)
    right = {"X-API-Key": KEY, "Accept": "application/json"}
    done = httpx.post(server.address + "/v1/cutout", headers=right, content=PORTRAIT.read_bytes())
    assert done.json()["person"] > 0.3
    assert httpx.get(server.address + "/healthz").json()["processes"] == 2


def test_a_body_over_the_limit_is_refused_early_or_late(server):
    """By its length where a client says it, before it has come; else when it has come."""
    limit = command.parse_args([]).max_bytes
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"Host: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {limit + 1}\r\n\r\n"
        connection.sendall(f"POST /v1/cutout HTTP/1.1\r\n{head}".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")

    def chunks():
        for _ in range(limit // 1_000_000 + 1):
            yield bytes(1_000_000)

    assert "32,000,000 bytes" in problem(server.client.post("/v1/cutout", content=chunks()), 413)


def test_clients_of_rembg_work(server):
    alone = picture(post(server, "/v1/cutout"))
    cut = post(server, "/api/remove", model="u2net", a="false", af="240", ae="10", ppm="false")
    assert np.array_equal(picture(cut), alone)
    only_mask = picture(post(server, "/api/remove", om="true"))
    assert np.array_equal(only_mask, alone[:, :, 3])
    expected = picture(post(server, "/v1/replace", background="#ff0000"))
    for red in ("255,0,0,255", "255,0,0"):
        assert np.array_equal(picture(post(server, "/api/remove", bgc=red)), expected)
    hair = post(server, "/api/remove", a="true")
    assert np.array_equal(picture(hair), picture(post(server, "/v1/cutout", matting="hair")))
    assert "neither a colour" in problem(post(server, "/api/remove", bgc="9,9,999"), 422)


def test_curl_sends_a_photo_and_gets_a_picture(server, tmp_path):
    for flags in (["--data-binary", f"@{PORTRAIT}"], ["-F", f"file=@{PORTRAIT}"]):
        key = ["-H", f"Authorization: Bearer {KEY}", "-o", tmp_path / "a.png"]
        done = subprocess.run(
            ["curl", "-sS", "--fail", *key, *flags, f"{server.address}/v1/cutout"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED).shape[2] == 4


def test_openapi_describes_every_effect_parameter_and_refusal(server):
    client = server.client
    described = client.get("/openapi.json").json()
    cut = described["paths"]["/v1/{mode}"]["post"]
    assert {each["name"] for each in cut["parameters"]} == {
        "mode", "background", "blur", "matting", "refine", "format",
    }  # fmt: skip
    assert {"image/*", "multipart/form-data"} == set(cut["requestBody"]["content"])
    assert {"200", "401", "413", "422", "429", "503"} <= set(cut["responses"])
    page = client.get("/docs").text
    assert "/openapi.json" in page
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(files) >= 3 and all(client.get(file).status_code == 200 for file in files)
    assert all(file.startswith("/") for file in files), "the page needs no other server"


def test_metrics_count_answers_and_hold_no_name_of_a_photo(server):
    def count():
        text = server.client.get("/metrics").text
        assert "grandmother" not in text
        lines = re.findall(r'requests_total{mode="grey",status="(\d+)"} (\d+)', text)
        return {status: int(number) for status, number in lines}

    before = count()
    post(server, "/v1/grey", name="grandmother.jpg")
    post(server, "/v1/grey", b"x", name="grandmother.jpg")
    assert count() == {each: before.get(each, 0) + 1 for each in ("200", "422")} | {
        each: number for each, number in before.items() if each not in ("200", "422")
    }


def test_a_small_photo_does_not_wait_for_a_large_one(server):
    large = cv2.resize(cv2.imread(str(PORTRAIT)), (3000, 3000))
    large = cv2.imencode(".jpg", large)[1].tobytes()
    done = []

    def send(name, photo, **fields):
        headers, files = server.client.headers, {"file": photo}
        address = server.address + "/v1/cutout"
        sent = httpx.post(address, files=files, data=fields, headers=headers, timeout=60)
        done.append((name, sent.status_code))

    thread = threading.Thread(target=send, args=("large", large), kwargs={"matting": "hair"})
    thread.start()
    time.sleep(0.1)
    for _ in range(2):
        send("small", PORTRAIT.read_bytes(), format="json")
    thread.join()
    assert done == [("small", 200), ("small", 200), ("large", 200)]


def test_a_killed_process_is_replaced_and_no_request_lost_but_its_own(server):
    for number in server.workers():
        os.kill(number, signal.SIGKILL)
    statuses = [post(server, "/v1/cutout", format="json").status_code for _ in range(4)]
    assert set(statuses) <= {200, 503} and statuses.count(503) <= 2
    wait_until(lambda: httpx.get(server.address + "/healthz").json()["processes"] == 2)
    assert len(server.workers()) == 2
    assert post(server, "/v1/cutout", format="json").status_code == 200


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_after_what_it_accepted(tmp_path, number):
    server = Server(tmp_path / "cwd", "--workers", "1")
    processes, answers = server.workers(), []
    threads = [
        threading.Thread(target=lambda: answers.append(httpx.post(
            server.address + "/v1/cutout?matting=hair", content=PORTRAIT.read_bytes(), timeout=60,
        )))
        for _ in range(4)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    wait_until(lambda: httpx.get(server.address + "/healthz").json()["photos"] == 4)
    for process in processes if number == signal.SIGTERM else []:
        os.kill(process, number)  # as a service manager does
    assert server.stop(number) == (0, "", "")
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 4
    wait_until(lambda: not any(map(alive, processes)), 5)


def test_a_server_that_is_killed_leaves_no_process(tmp_path):
    server = Server(tmp_path / "cwd", "--workers", "1")
    processes = server.workers()
    assert processes
    server.process.kill()
    server.process.communicate()
    wait_until(lambda: not any(map(alive, processes)), 5)


def alive(number):
    return (
        Path(f"/proc/{number}").exists() and " Z " not in Path(f"/proc/{number}/stat").read_text()
    )


def test_a_server_that_cannot_start_says_why(tmp_path, capsys):
    assert command.main(["--model_path", str(tmp_path / "none.onnx"), "--port", "0"]) == 1
    assert "There is no model file" in capsys.readouterr().err
    with command.listen("127.0.0.1", 0) as taken:
        assert command.main(["--port", str(taken.getsockname()[1])]) == 1
    assert "give another --host or --port" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["--workers", "0"])
    assert "must be a whole number from 1 to 1024, not '0'" in capsys.readouterr().err


# The application alone, with workers that do what a test says.


class Stub:
    """Workers whose jobs end when the test ends them."""

    processes, ready, replaced = (None, None), 2, 0

    def __init__(self):
        self.jobs = []

    def submit(self, request, deadline):
        self.jobs.append((request, Future()))
        return self.jobs[-1][1]


def with_app(test, **limits):
    """Run an async function of (client, stub) with the application around a Stub."""
    limits = {"max_bytes": 1000, "max_waiting": 1, "max_seconds": 30} | limits

    async def run():
        stub = Stub()
        transport = httpx.ASGITransport(make_app(stub, **limits))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await test(client, stub)

    asyncio.run(run())


def test_a_full_server_refuses_at_once_and_says_when_to_come_back():
    async def test(client, stub):
        sent = [asyncio.ensure_future(client.post("/v1/cutout", content=b"x")) for _ in range(3)]
        while len(stub.jobs) < 3:
            await asyncio.sleep(0.01)
        full = await client.post("/v1/cutout", content=b"x")
        assert "3 photos are waiting" in problem(full, 429)
        assert int(full.headers["retry-after"]) >= 1
        stub.jobs[0][1].set_result(Answer(b"y", "image/png", 0.5, 1000.0))
        await sent[0]
        another = asyncio.ensure_future(client.post("/v1/cutout", content=b"x"))
        while len(stub.jobs) < 4:
            await asyncio.sleep(0.01)
        for _, future in stub.jobs[1:]:
            future.set_result(Answer(b"y", "image/png", 0.5, 1000.0))
        answers = await asyncio.gather(*sent, another)
        assert [answer.status_code for answer in answers] == [200] * 4

    with_app(test)


@pytest.mark.parametrize(
    "error, status, words",
    [
        (RefusedError("a is no photo: give one."), 422, "a is no photo: give one."),
        (TimeoutError(), 503, "not done within 30 s"),
        (ChildProcessError(), 503, "mostly for lack of memory"),
    ],
)
def test_what_a_process_ends_with_has_its_status(error, status, words):
    async def test(client, stub):
        sent = asyncio.ensure_future(client.post("/v1/cutout", content=b"x"))
        while not stub.jobs:
            await asyncio.sleep(0.01)
        stub.jobs[0][1].set_exception(error)
        response = await sent
        assert words in problem(response, status)
        assert ("retry-after" in response.headers) == (status == 503)

    with_app(test)


def test_a_photo_that_waits_too_long_is_given_up():
    async def test(client, stub):
        response = await client.post("/v1/cutout", content=b"x")
        assert "not done within 0.2 s" in problem(response, 503)
        await asyncio.sleep(0.01)
        assert stub.jobs[0][1].cancelled()

    with_app(test, max_seconds=0.2)


def test_a_photo_of_a_form_never_goes_to_the_disk(monkeypatch):
    """Not even to a file without a name, which no folder would show."""
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", None)  # a call would fail

    async def test(client, stub):
        files = {"file": bytes(3_000_000)}
        sent = asyncio.ensure_future(client.post("/v1/cutout", files=files))
        while not stub.jobs and not sent.done():
            await asyncio.sleep(0.01)
        stub.jobs[0][1].set_result(Answer(b"y", "image/png", 0.5, 1.0))
        assert (await sent).status_code == 200 and len(stub.jobs[0][0].photo) == 3_000_000

    with_app(test, max_bytes=4_000_000)


def test_a_body_that_comes_too_slowly_is_given_up():
    async def slow():
        yield b"x"
        await asyncio.sleep(60)

    async def test(client, stub):
        response = await client.post("/v1/cutout", content=slow())
        assert "did not come within 0.2 s" in problem(response, 408) and not stub.jobs

    with_app(test, max_seconds=0.2)


def test_a_client_that_leaves_cancels_its_photo(tmp_path):
    """The last of three jobs of one process is never begun."""
    server = Server(tmp_path / "cwd", "--workers", "1")
    photo = cv2.imencode(".jpg", cv2.resize(cv2.imread(str(PORTRAIT)), (2000, 2000)))[1].tobytes()
    for _ in range(3):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.address + "/v1/cutout?matting=hair", content=photo, timeout=0.3)
    wait_until(lambda: httpx.get(server.address + "/healthz").json()["photos"] == 0)
    text = server.client.get("/metrics").text
    assert 'requests_total{mode="cutout",status="499"} 3.0' in text
    server.stop()


# The processes alone.


def make_echo(shift):
    def echo(item):
        if item == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "sleep":
            time.sleep(60)
        if item == "refuse":
            raise ValueError("No.")
        return item + shift

    return echo


def make_nothing():
    raise ValueError("There is no network.")


@pytest.fixture
def workers():
    workers = Workers(make_echo, (1,), 1)
    yield workers
    workers.close()


def soon(seconds=60):
    return time.monotonic() + seconds


def test_jobs_have_results_or_refusals(workers):
    futures = [workers.submit(item, soon()) for item in (1, "refuse", 2)]
    assert futures[0].result(60) == 2 and futures[2].result(60) == 3
    with pytest.raises(RefusedError, match="No."):
        futures[1].result(60)
    assert workers.ready == 1 and workers.replaced == 0


def test_a_process_that_dies_takes_one_job_with_it(workers):
    futures = [workers.submit(item, soon()) for item in ("die", 2)]
    with pytest.raises(ChildProcessError):
        futures[0].result(60)
    assert futures[1].result(60) == 3 and workers.replaced == 1 and workers.ready == 1


def test_a_process_that_takes_too_long_is_replaced_and_late_jobs_are_not_begun(workers):
    late = workers.submit("sleep", soon(0.5))
    waiting = workers.submit(1, soon(0.1))
    next_one = workers.submit(2, soon())
    for future in (late, waiting):
        with pytest.raises(TimeoutError):
            future.result(60)
    assert next_one.result(60) == 3 and workers.replaced == 1


def test_a_cancelled_job_is_not_begun(workers):
    first = workers.submit("sleep", soon(0.5))
    cancelled = workers.submit("die", soon())
    assert cancelled.cancel()
    with pytest.raises(TimeoutError):
        first.result(60)
    assert workers.submit(1, soon()).result(60) == 2 and workers.replaced == 1


def test_processes_that_cannot_start_say_why():
    with pytest.raises(RuntimeError, match="There is no network"):
        Workers(make_nothing, (), 1)


def test_a_process_that_cannot_be_replaced_is_tried_again(workers, monkeypatch):
    monkeypatch.setattr("portraitnet.server.workers.PAUSE", 0.01)
    start, failures = workers.start, iter([True, True, False])

    def sometimes():
        process = start()
        if next(failures):
            process.process.kill()
        return process

    monkeypatch.setattr(workers, "start", sometimes)
    with pytest.raises(ChildProcessError):
        workers.submit("die", soon()).result(60)
    assert workers.submit(1, soon()).result(60) == 2 and workers.ready == 1


# Any body.


def bodies(count, seed=0):
    """Random bytes, and mutated photos and forms: (content type, body)."""
    rng = np.random.default_rng(seed)
    image = draw_portrait(rng, 64, 60)[0]
    alpha = np.dstack([image, image[:, :, :1]])
    kinds = [
        (s, image) for s in (".jpg", ".png", ".webp", ".bmp", ".tiff", ".gif", ".avif", ".jp2")
    ]
    photos = [cv2.imencode(s, each)[1].tobytes() for s, each in [*kinds, (".png", alpha)]]
    forms = []
    for photo in photos:
        request = httpx.Request(
            "POST",
            "http://x",
            files={"file": ("a.jpg", photo)},
            data={"blur": "2", "matting": "none"},
        )
        forms.append((request.headers["content-type"], request.read()))
    seeds = [*((None, photo) for photo in photos), *forms]
    for _ in range(count):
        kind, body = seeds[rng.integers(len(seeds))]
        body = bytearray(body if rng.random() < 0.9 else rng.bytes(int(rng.integers(0, 300))))
        for _ in range(rng.integers(0, 8)):
            near = int(len(body) * (0.1 if rng.random() < 0.5 else 1)) or 1
            if body:
                body[rng.integers(0, min(near, len(body)))] = rng.integers(256)
        if rng.random() < 0.3:
            body = body[: rng.integers(0, len(body) + 1)]
        if rng.random() < 0.1:
            place = int(rng.integers(0, len(body) + 1))
            body[place:place] = rng.bytes(int(rng.integers(1, 40)))
        if rng.random() < 0.05:
            kind = "multipart/form-data" + rng.choice(["", "; boundary=", "; boundary=" + "é" * 80])
        yield kind, bytes(body)


def check_bodies(server, count, seed):
    """Statuses and their number; every answer is a picture or a sentence, and nothing dies."""
    statuses, modes = {}, ["cutout", "overlay", "mask", "replace", "blur", "grey"]
    for i, (kind, body) in enumerate(bodies(count, seed)):
        address = "/api/remove" if i % 7 == 6 else f"/v1/{modes[i % 7]}"
        headers = {"content-type": kind.encode()} if kind else {}
        response = server.client.post(address, content=body, headers=headers)
        status = response.status_code
        statuses[status] = statuses.get(status, 0) + 1
        assert status in (200, 400, 422), (status, kind, body)
        if status == 200:
            picture(response)
        else:
            detail = problem(response, status)
            assert detail and "\n" not in detail, detail
    return statuses


def test_any_body_has_an_answer(server):
    replaced = "portraitnet_processes_replaced"
    before = re.search(rf"^{replaced} .*", server.client.get("/metrics").text, re.M)[0]
    statuses = check_bodies(server, 300, seed=0)
    assert {200, 400, 422} <= set(statuses), statuses
    assert before in server.client.get("/metrics").text


@pytest.mark.slow
def test_ten_thousand_bodies_have_an_answer(server):
    before = server.workers()
    print("\nbodies:", check_bodies(server, 10_000, seed=1))
    assert server.workers() == before, "a process died"


# The image.


def instructions(text):
    """(keyword, rest) of each line of a Dockerfile, of its last stage and those before."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.M)).splitlines()
    return [tuple(re.sub(r"\s+", " ", line).split(" ", 1)) for line in lines if line.strip()]


@pytest.fixture
def open_folder():
    """A folder that every user may read; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.slow
def test_the_steps_of_the_dockerfile_make_a_server_that_needs_no_rights(open_folder):
    """Its pip runs in a fresh environment; its entry point as its user, where nothing can be
    written; its health check and a photo are answered. Only apt-get is left out."""
    if (
        os.geteuid()
        or not Path("/usr/bin/python3").exists()
        or shutil.which("unshare") is None
        or shutil.which("setpriv") is None
    ):
        pytest.skip("only root can take its rights away")
    steps = instructions((ROOT / "apps" / "server" / "Dockerfile").read_text())
    python = "/usr/bin/python3"  # other users may not run one in root's home
    subprocess.run([python, "-m", "venv", open_folder / "venv"], check=True)
    (open_folder / "src").mkdir()

    def here(words):
        return words.replace("/src", f"{open_folder}/src").replace("/wheel", f"{open_folder}/wheel")

    path = {"PATH": f"{open_folder}/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    for keyword, rest in steps:
        if keyword == "COPY":
            *sources, target = rest.split()
            for source in sources:
                copied = Path(here(target)) / (source if target.endswith("/") else "")
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, copied)
        elif keyword == "RUN" and "pip " in rest:
            command = here(re.sub(r"--mount=\S+ ", "", rest))
            subprocess.run(["sh", "-c", command], env=os.environ | path, check=True, cwd="/")
    facts = dict(steps)
    user, group = facts["USER"].split(":")
    variables = dict(each.split("=") for each in facts["ENV"].split())
    # A mount of its own in which nothing can be written, as of `docker run --read-only`.
    shell = f"mount -o remount,ro,bind / && exec setpriv --reuid {user} --regid {group}"
    shell += ' --clear-groups --bounding-set=-all --no-new-privs "$@"'
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [*json.loads(facts["ENTRYPOINT"]), "--port", port]
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", shell, "sh", *command],
        env=path | variables, cwd="/", stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert "/docs shows the API" in process.stdout.readline()
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(rf"^Uid:\s+{user}\s", status, re.M)
        check = json.loads(facts["HEALTHCHECK"].split("CMD ")[1])
        check[-1] = check[-1].replace(":8000", f":{port}")
        subprocess.run(check, env=path, check=True)
        address = f"http://127.0.0.1:{port}/v1/cutout"
        cut = httpx.post(address, content=PORTRAIT.read_bytes(), timeout=60)
        assert picture(cut).shape[2] == 4
    finally:
        process.terminate()
        assert process.wait(60) == 0
