"""The page as a phone app, in a real browser (slow tests): offline, updates, sharing, networks."""

import json
import re
import shutil
import threading

import cv2
import pytest
from test_web import address, browser, choose, clip, open_example, page, pictures, save  # noqa: F401

from apps.web import __main__ as web
from benchmarks.web_speed import CHROMIUM, EXAMPLE, FLAGS

pytestmark = pytest.mark.slow
LOADED = "#runtime:not(:empty)"
KEPT = """async () => {
  await navigator.serviceWorker.ready;
  const names = (await caches.keys()).filter((name) => name.startsWith("page "));
  return navigator.serviceWorker.controller && names.length === 1 ? names[0] : null;
}"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A page whose files can be changed and whose server can be stopped."""
    folder = tmp_path / "web"
    skip = shutil.ignore_patterns("node_modules", "__pycache__")
    shutil.copytree(web.FOLDER, folder, ignore=skip)
    (folder / "node_modules").symlink_to(web.FOLDER / "node_modules")
    monkeypatch.setattr(web, "FOLDER", folder)

    class Site:
        def start(self, port=0):
            self.server = web.make_server(web.MODEL_PATH, port)
            threading.Thread(target=self.server.serve_forever, daemon=True).start()
            self.address = f"http://127.0.0.1:{self.server.server_port}/"

        def stop(self):
            self.server.shutdown()
            self.server.server_close()

    made = Site()
    made.folder = folder
    made.start()
    yield made
    made.stop()


def visit(context, address):  # noqa: F811
    """The loaded page, with the names of its files' cache."""
    page = context.new_page()  # noqa: F811
    page.goto(address)
    page.wait_for_selector(LOADED, state="attached", timeout=90_000)
    return page, page.wait_for_function(KEPT, timeout=60_000).json_value()


def test_the_page_works_without_a_network_after_the_first_visit(browser, site, tmp_path):  # noqa: F811
    context = browser.new_context()
    page, _ = visit(context, site.address)  # noqa: F811
    page.close()
    site.stop()
    page = context.new_page()
    problems = []
    page.on("console", lambda line: line.type == "error" and problems.append(line.text))
    page.goto(f"{site.address}?language=en")
    page.wait_for_selector(LOADED, state="attached", timeout=90_000)
    assert page.evaluate("crossOriginIsolated"), "one thread only"
    open_example(page)
    assert save(page, tmp_path / "cut.png").shape == (512, 512, 4)
    page.set_input_files("#files", [EXAMPLE, EXAMPLE])
    page.wait_for_selector("#save:not([disabled])", timeout=60_000)
    with page.expect_download(timeout=120_000) as download:
        page.click("#save_all")  # its library comes from the cache
    assert download.value.suggested_filename == "photos_cutout.zip"
    assert not problems
    context.close()
    site.start()


def test_the_page_updates_itself(browser, site):  # noqa: F811
    context = browser.new_context()
    page, first = visit(context, site.address)  # noqa: F811
    page.goto(site.address)
    assert page.inner_text("#choose") == "Choose photos"
    strings = site.folder / "strings.js"
    strings.write_text(strings.read_text().replace('"Choose photos"', '"Choose pictures"'))
    page.goto(site.address)  # at once, and not at the next visit only
    assert page.inner_text("#choose") == "Choose pictures"
    page.wait_for_selector(LOADED, state="attached", timeout=90_000)
    page.wait_for_function(
        f"async () => ((name) => name && name !== '{first}')(await ({KEPT})())", timeout=60_000
    )
    context.close()


def test_the_second_visit_sends_almost_nothing(browser, site):  # noqa: F811
    from benchmarks import web_speed

    address = web_speed.serve(web, web.Handler, web.MODEL_PATH)  # noqa: F811
    context = browser.new_context()
    page, _ = visit(context, address)  # noqa: F811
    first = web_speed.Sent.wire
    page.goto(address)
    page.wait_for_selector(LOADED, state="attached", timeout=90_000)
    assert web_speed.Sent.wire - first < 20_000
    # To keep the files has cost little more than to load them.
    assert first < 14e6
    context.close()


def test_a_phone_may_install_the_page(page):  # noqa: F811
    session = page.context.new_cdp_session(page)
    manifest = session.send("Page.getAppManifest")
    assert not manifest["errors"] and manifest["url"].endswith("manifest.webmanifest")
    data = json.loads(manifest["data"])
    for icon in data["icons"]:
        path = web.FOLDER / icon["src"]
        if path.suffix == ".png":
            assert cv2.imread(str(path)).shape[:2] == (int(icon["sizes"][:3]),) * 2
    assert {icon.get("purpose", "any") for icon in data["icons"]} == {"any", "maskable"}
    errors = session.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert [error for error in errors if error["errorId"] != "in-incognito"] == []


def test_a_shared_photo_is_opened_once(browser, address):  # noqa: F811
    context = browser.new_context()
    page, _ = visit(context, address)  # noqa: F811
    data = list(EXAMPLE.read_bytes())
    requested = []
    page.on("request", lambda request: requested.append(request.url))
    page.evaluate(
        """async (bytes) => {
          const form = new FormData();
          form.append("files", new File([new Uint8Array(bytes)], "né.png", { type: "image/png" }));
          return (await fetch("receive", { method: "POST", body: form })).ok;
        }""",
        data,
    )
    assert f"{address}?shared" in requested
    page.goto(f"{address}?shared")
    page.wait_for_selector("#status:has-text('né.png, 512 × 512')", timeout=60_000)
    assert page.url == address
    page.goto(f"{address}?shared")
    page.wait_for_selector(LOADED, state="attached", timeout=90_000)
    assert page.is_visible("#choose"), "the photo comes twice"
    context.close()


def test_a_result_is_handed_to_another_app(page):  # noqa: F811
    page.add_init_script(
        "navigator.canShare = () => true;"
        " navigator.share = async ({ files: [file] }) => { "
        " window.shared = [file.name, file.type, file.size] };"
    )
    page.reload()
    open_example(page)
    page.click("#send")
    page.wait_for_function("() => window.shared")
    name, kind, size = page.evaluate("window.shared")
    assert (name, kind) == ("astronaut_cutout.png", "image/png") and size > 50_000


def test_a_phone_has_a_camera_in_front_and_one_at_the_back(browser, address):  # noqa: F811
    context = browser.new_context(has_touch=True, is_mobile=True, permissions=["camera"])
    context.add_init_script(
        """
        window.wanted = [];
        const { getUserMedia, enumerateDevices } = MediaDevices.prototype;
        MediaDevices.prototype.getUserMedia = function (wish) {
          wanted.push(wish.video.facingMode?.ideal);
          return getUserMedia.call(this, wish);
        };
        MediaDevices.prototype.enumerateDevices = async function () {
          const found = await enumerateDevices.call(this);
          return [...found, ...found];
        };
        """
    )
    page = context.new_page()  # noqa: F811
    page.goto(address)
    choose(page, "camera")
    page.click("#start")
    page.wait_for_selector("#turn", timeout=60_000)
    assert page.is_checked("#mirror") and not page.is_visible("#devices")
    for facing, mirrored in (("environment", False), ("user", True)):
        page.wait_for_selector("#status:has-text('Live')", timeout=60_000)
        page.click("#turn")
        page.wait_for_function(f"() => wanted.at(-1) === '{facing}'")
        assert page.is_checked("#mirror") == mirrored
    context.close()


def test_the_large_network_is_offered_for_photos(browser):  # noqa: F811
    server = web.make_server(web.MODEL_PATH)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    context = browser.new_context(permissions=["camera"])
    page = context.new_page()  # noqa: F811
    requested = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"http://127.0.0.1:{server.server_port}/")
    open_example(page)
    title = "A larger network for photos and videos: 12.8 MB, downloaded once"
    assert page.get_attribute("#large", "title") == title
    before = page.evaluate("result.toDataURL()")
    assert not [url for url in requested if "large" in url], "nobody has asked for it"
    choose(page, "large")
    page.wait_for_function("(before) => result.toDataURL() !== before", arg=before, timeout=60_000)
    assert [url for url in requested if url.endswith("networks/large.onnx.gz")]
    page.locator("input[value=camera]").check(force=True)
    assert not page.is_visible("#large")
    context.close()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def software_gpu(browser):  # noqa: F811
    """A browser whose WebGPU is a software renderer."""
    flags = [flag for flag in FLAGS if flag != "--disable-gpu"]
    flags += ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
    flags += ["--enable-features=Vulkan", "--use-vulkan=swiftshader"]
    gpu = browser.browser_type.launch(executable_path=CHROMIUM, args=flags)
    yield gpu
    gpu.close()


@pytest.mark.parametrize("limit", ["0.01", "0"])
def test_webgpu_is_used_if_its_answer_is_the_processors(software_gpu, address, limit, monkeypatch):  # noqa: F811
    """With a limit of 0 no answer is near enough."""
    content = web.content

    def changed(name, files):
        body = content(name, files)
        if name != "network.js":
            return body
        assert body.count(b"AGREED = 0.01") == 1
        return body.replace(b"AGREED = 0.01", f"AGREED = {limit}".encode())

    monkeypatch.setattr(web, "content", changed)  # the server runs in this process
    context = software_gpu.new_context(service_workers="block")
    page = context.new_page()  # noqa: F811
    page.goto(f"{address}?backend=webgpu")
    if page.evaluate("async () => !(await navigator.gpu?.requestAdapter())"):
        pytest.skip("this Chromium has no software renderer for WebGPU")
    page.wait_for_selector(f"{LOADED}, #status.wrong", state="attached", timeout=400_000)
    if limit == "0.01":
        assert page.text_content("#runtime") == "Runs on the graphics card."
    else:
        message = page.inner_text("#status")
        assert re.fullmatch(r"The network cannot be loaded: difference \d\.?\d*(e-\d+)?", message)
    context.close()


def test_a_large_network_that_does_not_arrive_leaves_the_full_one(browser, tmp_path, monkeypatch):  # noqa: F811
    large = tmp_path / "portraitnet_large.onnx"
    shutil.copy(web.MODEL_PATH, large)
    shutil.copy(web.MODEL_PATH.with_suffix(".json"), large.with_suffix(".json"))
    monkeypatch.setattr(web, "LARGE_PATH", large)
    server = web.make_server(web.MODEL_PATH)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()  # noqa: F811
    page.goto(f"http://127.0.0.1:{server.server_port}/")
    open_example(page)
    large.unlink()
    # Not `check`, which wants it checked afterwards: the page may be back at "full" before that.
    page.locator("input[value=large]").click(force=True)
    page.wait_for_selector(
        "#status.wrong:has-text('The network cannot be loaded: the server did not')"
    )
    assert page.is_checked("input[value=full]") and page.is_enabled("#save")
    page.close()
    server.shutdown()
    server.server_close()
