"""The local page: what it finds, what it refuses, and that it works in a real browser."""

from __future__ import annotations

import http.client
import io
import json
import socket
import struct
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.open import open_source
from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import Classifier
from tokenlabel.geometry import Box, View
from tokenlabel.labels import LabelMap, LabelStore, LabelStoreWriter, token_targets
from tokenlabel.labels.health import mean_entropy
from tokenlabel.labels.vocabulary import Vocabulary
from tokenlabel.models import DenseModel
from tokenlabel.viewer.answers import Answers, student_loss
from tokenlabel.viewer.catalog import Catalog, Query, disagreement
from tokenlabel.viewer.server import ViewerServer, _Handler

sys.path.insert(0, str(Path(__file__).parent))
from browser import CHROMIUM, Browser

NAMES = ("cat", "dog", "owl")


def halves(left: int, right: int, certainty: float, extent: Box = Box()) -> LabelMap:
    """A 2 x 4 map: one class on the left, one on the right."""
    p = torch.full((3, 2, 4), (1 - certainty) / 2)
    p[left, :, :2] = certainty
    p[right, :, 2:] = certainty
    return LabelMap.from_logits(p.log(), 3, extent)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images, five with labels; the annotator is sure of the truth except for dog/1.png."""
    root = tmp_path_factory.mktemp("viewer")
    rng = np.random.default_rng(0)
    stores = {name: LabelStoreWriter(root / name, num_classes=3) for name in ("labels", "other")}
    for label, name in enumerate(NAMES):
        (root / "data" / name).mkdir(parents=True)
        for i in (1, 2):
            pixels = rng.integers(0, 255, (60, 100, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / "data" / name / f"{i}.png")
            said = 2 if (name, i) == ("dog", 1) else label
            if (name, i) != ("owl", 2):
                stores["labels"].add(f"{name}/{i}.png", halves(said, said, 0.9 if i == 1 else 0.6))
                stores["other"].add(f"{name}/{i}.png", halves(0, 1, 0.8))
    for store in stores.values():
        store.close()
    return root


@pytest.fixture
def catalog(place: Path) -> Iterator[Catalog]:
    made = Catalog(open_source(str(place / "data")), LabelStore(place / "labels"))
    yield made
    made.close()


def scored(catalog: Catalog) -> Catalog:
    catalog.start()
    catalog._thread.join(30)
    return catalog


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[ViewerServer]:
    made = scored(Catalog(open_source(str(place / "data")), LabelStore(place / "labels")))
    torch.manual_seed(0)
    model = DenseModel("test_vit", 3, img_size=32).eval().requires_grad_(False)
    settings = Preprocessing((32, 32), 1.0, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    student = Classifier(model, settings, NAMES, True, {"model": "test_vit"})
    with ViewerServer(Answers(made, LabelStore(place / "other"), student)) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def get(server: ViewerServer, path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read()


def ask(server: ViewerServer, name: str, **words: Any) -> Any:
    status, body = get(server, f"/api/{name}?{urllib.parse.urlencode(words)}")
    assert status == 200, body
    return json.loads(body)


# -- what is found ------------------------------------------------------------------------------


def test_scores_are_what_they_are_called() -> None:
    label_map = halves(0, 1, 0.8)
    assert disagreement(label_map, 0) == pytest.approx(1 - (0.8 + 0.1) / 2, abs=1e-5)
    expected = -(0.8 * np.log(0.8) + 2 * 0.1 * np.log(0.1))
    assert mean_entropy(label_map.probabilities(), 3) == pytest.approx(expected, abs=1e-4)


def test_entropy_counts_the_mass_outside_the_best() -> None:
    logits = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(0))
    full = torch.distributions.Categorical(logits=logits.permute(1, 2, 0)).entropy().mean().item()
    whole = LabelMap.from_logits(logits, 7, Box())
    assert mean_entropy(whole.probabilities(), 7) == pytest.approx(full, abs=1e-5)
    even = LabelMap.from_logits(torch.zeros(7, 3, 5), 2, Box())
    assert mean_entropy(even.probabilities(), 7) == pytest.approx(np.log(7), abs=1e-5)


def test_sorting_by_disagreement_brings_the_wrong_label_first(catalog: Catalog) -> None:
    found = scored(catalog).find(Query(sort="disagreement", descending=True, limit=2))
    keys = [catalog.source.keys[i] for i in found.indices]
    assert keys == ["dog/1.png", "cat/2.png"]
    assert found.total == 5  # one image has no label


def test_searching_by_class_name_and_page(catalog: Catalog) -> None:
    def keys(**query: Any) -> list[str]:
        return [catalog.source.keys[i] for i in catalog.find(Query(**query)).indices]

    assert keys(labels=[1]) == ["dog/1.png", "dog/2.png"]
    assert keys(labels=[0, 2], text="1.p") == ["cat/1.png", "owl/1.png"]
    assert keys(labels=[]) == []
    assert keys(text="OWL/") == ["owl/1.png", "owl/2.png"]
    assert keys(labels=[1], text="2.p") == ["dog/2.png"]
    assert keys(offset=4, limit=1, descending=True) == ["cat/2.png"]
    with pytest.raises(InputError, match="cannot sort by"):
        keys(sort="price")


def test_a_student_adds_its_loss(catalog: Catalog, server: ViewerServer) -> None:
    student = server.answers.student
    assert student is not None
    catalog.add_score("loss", lambda index: student_loss(catalog, student, index))
    assert np.isfinite(scored(catalog).scores["loss"]).all()


class _Million:
    """A data set of ImageNet's size whose images cannot be read."""

    class_names = NAMES
    keys = tuple(f"{NAMES[i % 3]}/{i:07d}.png" for i in range(1_281_167))
    labels = np.arange(len(keys)) % 3

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> bytes:
        raise AssertionError("a list needs no image")


def test_a_million_images_are_listed_without_being_read(place: Path) -> None:
    catalog = Catalog(_Million(), LabelStore(place / "labels"))
    found = Answers(catalog).list({"class": "DOG", "text": "00.png", "offset": "600"})
    assert found["total"] == sum("00.png" in key for key in _Million.keys[1::3])
    assert len(found["items"]) == 60
    assert all(item["class"] == 1 and "00.png" in item["key"] for item in found["items"])


# -- what is answered ---------------------------------------------------------------------------


def test_an_image_comes_with_all_its_maps(server: ViewerServer) -> None:
    item = ask(server, "item", index=2)
    assert (item["key"], item["size"]) == ("dog/1.png", [60, 100])
    assert item["maps"]["labels"]["grid"] == [2, 4]
    assert [cell[0] for cell in item["maps"]["labels"]["classes"]] == [2] * 8
    assert [cell[0] for cell in item["maps"]["other"]["classes"]] == [0, 0, 1, 1] * 2
    assert item["maps"]["student"]["grid"] == [2, 2]
    # the student saw the center square of the wide image
    assert item["maps"]["student"]["extent"] == pytest.approx([0.2, 0, 0.8, 1], abs=0.02)
    assert ask(server, "item", index=5)["maps"]["labels"] is None


def test_every_map_has_names_and_colors_of_its_own(server: ViewerServer, place: Path) -> None:
    """Words beside classes, of which there are more: each is called by what its own store holds."""
    vocabulary = Vocabulary(torch.eye(2), torch.zeros(2), 0.1)
    keys = list(LabelStore(place / "labels"))
    with LabelStoreWriter(place / "words", num_classes=2, vocabulary=vocabulary) as writer:
        for key in keys:
            writer.add(key, LabelMap.from_logits(torch.randn(2, 2, 4), 2, Box()))
    student, other = server.answers.student, LabelStore(place / "other")
    source = open_source(str(place / "data"))
    answers = Answers(Catalog(source, LabelStore(place / "words")), other, student)
    legends = answers.info({})["legends"]
    assert {name: list(legend["titles"]) for name, legend in legends.items()} == {
        "labels": ["word 0", "word 1"], "other": list(NAMES), "student": list(NAMES),
    }  # fmt: skip
    assert [len(legend["colors"]) for legend in legends.values()] == [2, 3, 3]
    assert [legend["words"] for legend in legends.values()] == [True, False, False]
    sheets = [answers.word_sheet({"words": words}) for words in ("1", "1,0")]
    one, two = (Image.open(io.BytesIO(sheet)) for sheet in sheets)
    assert two.height > one.height
    for asked in ({"words": "2"}, {"words": ""}, {"words": "0", "map": "other"}, {"map": "x"}):
        with pytest.raises(InputError):
            answers.word_sheet(asked)
    assert get(server, "/words?words=0") == (400, b"this map shows no visual words")


def test_the_students_answer_is_by_its_rule(server: ViewerServer, place: Path) -> None:
    student = server.answers.student
    assert student is not None
    shown = student.preprocessing.pixels(np.asarray(Image.open(place / "data" / "dog" / "1.png")))
    with torch.inference_mode():
        expected = student.scores(shown[None])[student.rule].softmax(1)[0]
    answer = ask(server, "item", index=2)["answer"]
    assert [guess["number"] for guess in answer] == expected.argsort(descending=True).tolist()
    assert answer[0]["confidence"] == pytest.approx(float(expected.max()), abs=1e-5)


def test_a_crops_targets_are_those_of_training(server: ViewerServer, place: Path) -> None:
    answers = Answers(Catalog(open_source(str(place / "data")), LabelStore(place / "other")))
    words = {"index": "0", "x0": "0.3", "y0": "0.1", "x1": "0.9", "y1": "0.7", "grid": "3"}
    found = answers.crop(words)
    label_map = LabelStore(place / "other")["cat/1.png"]
    view = View.crop(Box(0.3, 0.1, 0.9, 0.7))
    dense = token_targets([label_map], [view], (3, 3), smoothing=0.0).dense()[0, 1:]
    for cell, (ids, given) in enumerate(zip(found["classes"], found["probabilities"], strict=True)):
        assert given == pytest.approx(dense[cell, ids].tolist(), abs=1e-4)
        assert given == sorted(given, reverse=True)
    assert found["classes"][0][0] == 0
    assert found["classes"][2][0] == 1


def test_pictures_are_small_jpegs(server: ViewerServer) -> None:
    status, body = get(server, "/image?index=0&side=50")
    assert status == 200
    assert Image.open(io.BytesIO(body)).size == (50, 30)


# -- what is refused ----------------------------------------------------------------------------


def test_it_listens_on_this_machine_only(server: ViewerServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors"},
    ],
)
def test_other_hosts_and_origins_are_refused(server: ViewerServer, headers: dict) -> None:
    filled = {k: v.replace("{port}", str(server.port)) for k, v in headers.items()}
    for path in ("/", "/api/info", "/image?index=0"):
        if path == "/" and "Sec_Fetch_Site" in headers:
            continue
        assert get(server, path, **filled) == (403, b"for this machine only")


def test_its_own_page_is_not_refused(server: ViewerServer) -> None:
    own = f"localhost:{server.port}"
    assert get(server, "/api/info", Host=own, Origin=f"http://{own}")[0] == 200
    assert get(server, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/../../../../etc/passwd", 404),
        ("/etc/passwd", 404),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/page.html", 404),
        ("/image?index=../../etc/passwd", 400),
        ("/image?index=-1", 400),
        ("/image?index=6", 400),
        ("/image?index=%D9%A1", 400),  # a digit of another script
        ("/image", 400),
        ("/image?index=0&side=999999", 400),
        ("/api/list?limit=100000", 400),
        ("/api/list?sort=__class__", 400),
        ("/api/crop?index=0&x0=1&y0=0&x1=0&y1=1", 400),
        ("/api/crop?index=0&x0=nan&y0=0&x1=0&y1=1", 400),
        ("/api/crop?index=5&x0=0&y0=0&x1=1&y1=1", 400),
        ("/api/crop?index=0&x0=-1e308&y0=0&x1=1e308&y1=1", 400),
        ("/api/crop?index=0&x0=-inf&y0=0&x1=inf&y1=1", 400),
        ("/api/crop?index=0&x0=0&y0=0&x1=1e-320&y1=1", 400),
        ("/api/list?offset=" + "9" * 30, 400),
        ("/api/item?index=" + "9" * 5000, 400),
        ("/api/list?class=" + "1" * 5000, 200),
        ("ftp://[::1/api/info", 400),
        ("/image?" + "a=1&" * 100, 400),
        ("/api/list?text=%ff%00%e2%80%ae", 200),
        ("/api/list?offset=" + "9" * 18, 200),
    ],
)
def test_what_is_not_offered_cannot_be_had(server: ViewerServer, path: str, status: int) -> None:
    given, body = get(server, path)
    assert given == status
    assert b"root:" not in body


def test_clients_that_leave_or_say_nothing_are_no_errors(
    server: ViewerServer, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _Handler.timeout == 30
    monkeypatch.setattr(_Handler, "timeout", 0.2)
    place = ("127.0.0.1", server.port)
    request = f"GET /image?index=0&side=2048 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n"
    for sent in (b"", b"GET / HT", request.encode(), b"\x16\x03\x01\x00\xa5", b"GET  \r\n\r\n"):
        with socket.create_connection(place) as client:
            client.sendall(sent)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with socket.create_connection(place, timeout=10) as client:
        assert client.recv(1) == b""  # closed after the time is up
    assert get(server, "/api/info")[0] == 200
    assert capfd.readouterr().err == ""


def test_links_out_of_the_data_are_not_images_unless_they_are(place: Path) -> None:
    """A link to a file that is no image gives an error that shows nothing of it."""
    link = place / "data" / "owl" / "3.png"
    secret = place / "secret.txt"
    secret.write_text("the secret")
    link.symlink_to(secret)
    try:
        answers = Answers(Catalog(open_source(str(place / "data")), LabelStore(place / "labels")))
        with pytest.raises(InputError) as error:
            answers.picture({"index": "6"})
        assert "the secret" not in str(error.value)
    finally:
        link.unlink()


def test_a_port_that_is_taken_is_named(server: ViewerServer) -> None:
    with pytest.raises(InputError, match=f"cannot listen on port {server.port}"):
        ViewerServer(server.answers, server.port)


# -- in a browser -------------------------------------------------------------------------------


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_the_page_works_in_a_browser(server: ViewerServer, tmp_path: Path) -> None:
    """Open, search, sort, click a cell, draw a crop; nothing is asked of any other host."""
    browser = Browser(tmp_path / "profile")
    cards = "[...document.querySelectorAll('.card')].map(card => card.title)"
    try:
        browser.open(server.url)
        browser.wait("document.querySelectorAll('.card').length === 6")
        type_in(browser, "text", "dog", "input")
        browser.wait("document.querySelectorAll('.card').length === 2")
        assert browser.run(cards) == ["dog/1.png", "dog/2.png"]
        type_in(browser, "text", "", "input")
        browser.wait("document.querySelectorAll('.card').length === 6")
        type_in(browser, "class", "o", "input")  # dog and owl
        browser.wait("document.querySelectorAll('.card').length === 4")
        type_in(browser, "class", "", "input")
        browser.wait("document.querySelectorAll('.card').length === 6")
        type_in(browser, "sort", "disagreement", "change")
        browser.wait(f"{cards}[0] === 'dog/1.png'")  # the worst, without asking for it
        opened = "document.querySelector('aside h3')?.textContent"
        for key, name in (("Right", "dog/1.png"), ("Right", "cat/2.png"), ("Left", "dog/1.png")):
            browser.run(
                f"document.body.dispatchEvent(new KeyboardEvent('keydown',"
                f" {{key: 'Arrow{key}', bubbles: true}}))"
            )
            browser.wait(f"{opened} === '{name}'")
        assert "student's answer: " in browser.run("document.getElementById('answer').innerText")
        browser.wait("document.querySelectorAll('canvas').length === 3")
        top = "document.querySelector('canvas[data-map=other]').getBoundingClientRect().top"
        browser.run("document.querySelector('canvas[data-map=other]').scrollIntoView()")
        before = browser.run(top)
        # right half of the other store's map: class dog, 80 %
        click(browser, "canvas[data-map=other]", (0.9, 0.2))
        cell = browser.wait("document.querySelector('#cell table')?.innerText")
        assert browser.run(top) == before  # the maps stay under the pointer
        name, share, _ = cell.split("\n")[0].split()
        assert (name, float(share)) == ("dog", pytest.approx(80, abs=0.5))  # as the store keeps it
        click(browser, "canvas[data-map=labels]", (0.1, 0.1), to=(0.8, 0.9))
        browser.wait("!!document.querySelector('#target')")
        assert browser.run("document.querySelector('input[type=number]').value") == "2"  # its grid
        red, green, blue = browser.run(
            "[...document.querySelector('canvas[data-map=other]').getContext('2d')"
            ".getImageData(5, 5, 1, 1).data].slice(0, 3)"
        )
        assert max(red, green, blue) > 0
        browser.screenshot(tmp_path / "page.png")
        assert Image.open(tmp_path / "page.png").width > 1000
        assert browser.errors == []
        assert browser.run("document.getElementById('error').textContent") == ""
        hosts = {urllib.parse.urlsplit(url).netloc for url in browser.requests}
        assert hosts - {""} == {f"127.0.0.1:{server.port}"}
    finally:
        browser.close()


def type_in(browser: Browser, field: str, text: str, event: str) -> None:
    browser.run(
        f"(() => {{ const field = document.getElementById('{field}'); field.value = '{text}';"
        f" field.dispatchEvent(new Event('{event}')); }})()"
    )


def click(
    browser: Browser, target: str, at: tuple[float, float], to: tuple[float, float] | None = None
) -> None:
    """Press at a place of an element, in fractions of its size."""
    browser.run(f"document.querySelector('{target}').scrollIntoView()")
    left, top, width, height = browser.run(
        f"(() => {{ const edge = document.querySelector('{target}').getBoundingClientRect();"
        " return [edge.left, edge.top, edge.width, edge.height]; })()"
    )
    points = [(left + x * width, top + y * height) for x, y in (at, to or at)]
    browser.press(*points[0], to=points[1] if to else None)


HOSTILE = (
    "<img src=x onerror=window.hit=1>",
    "\"'`${window.hit=1}`'\"",
    "\u202egnp.evil<script>window.hit=1<",
    "&lt;b&gt; </title><b>",
)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_class_names_are_text_in_a_browser(tmp_path: Path) -> None:
    names = [name.replace("/", "\u2215") for name in HOSTILE]
    for number, name in enumerate(names):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), (60 * number, 9, 9)).save(tmp_path / "data" / name / "1.png")
    source = open_source(str(tmp_path / "data"))
    with LabelStoreWriter(
        tmp_path / "labels", num_classes=len(names), class_names=source.class_names
    ) as writer:
        for key, label in zip(source.keys, source.labels, strict=True):
            logits = torch.zeros(len(names), 2, 2)
            logits[label] = 3
            writer.add(key, LabelMap.from_logits(logits, 2, Box()))
    answers = Answers(scored(Catalog(source, LabelStore(tmp_path / "labels"))))
    browser = Browser(tmp_path / "profile")
    with ViewerServer(answers) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        try:
            browser.open(running.url)
            browser.wait(f"document.querySelectorAll('.card').length === {len(names)}")
            shown = browser.run("[...document.querySelectorAll('.card')].map(c => c.title)")
            assert shown == list(source.keys)
            for number in range(len(names)):
                browser.run(f"document.querySelectorAll('.card')[{number}].click()")
                title = json.dumps(source.keys[number])
                browser.wait(f"document.querySelector('aside h3')?.textContent === {title}")
                click(browser, "canvas[data-map=labels]", (0.2, 0.2))
                browser.wait("!!document.querySelector('#cell table')?.innerText")
            assert browser.run("window.hit === undefined")
            assert (
                browser.run("document.querySelectorAll('img[src=x], aside b, script').length") == 1
            )
            assert browser.errors == []
        finally:
            browser.close()
            running.shutdown()
