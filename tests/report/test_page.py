"""The page: whole in itself, safe whatever files are called, and the same on a phone."""

import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from report.made_up import make_run, result

from ddpm.commands.report import main
from ddpm.metrics.protocol import write_result
from ddpm.report.page import POLICY, page
from ddpm.report.report import read_report

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "<script>alert(1)<!-- \"'& --><img src=x onerror=alert(2)>$\\alpha$"


class Reader(HTMLParser):
    """Tags with their attributes, the text outside of style, and whether every element is closed in order."""

    VOID = ("meta", "img", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def read_page(*folders):
    return Reader(page(read_report(folders)))


def test_the_page_asks_for_nothing_and_runs_nothing(two_runs):
    text = page(read_report([two_runs]))
    reader = Reader(text)
    assert reader.open == []
    assert reader.all("script") == reader.all("link") == reader.all("use") == []
    assert {"http-equiv": "Content-Security-Policy", "content": POLICY} in reader.all("meta")
    for _, attributes in reader.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("data:image/png;base64,", "#"))
    assert "@import" not in text
    assert "url(" not in text
    assert page(read_report([two_runs])) == text  # to the byte
    assert text.count("opacity: 0.16") == 2  # an error band for each run


def test_headings_are_in_order_links_lead_somewhere_and_pictures_say_what_they_are(two_runs):
    reader = read_page(two_runs)
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(following <= level + 1 for level, following in pairwise(levels))
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"][1:] for attributes in reader.all("a")} <= set(ids)
    assert all(attributes.get("alt") for attributes in reader.all("img"))
    assert len(reader.all("img")) == 6
    assert all("aria-label" in a or a.get("aria-hidden") for a in reader.all("svg"))


def test_results_have_their_error_and_the_best_is_marked_with_what_is_near(two_runs):
    text = " ".join(read_page(two_runs).text)
    assert re.search(r"≈ best +9\.00 +± 0\.20", text)
    assert re.search(r"best +8\.80 +± 0\.20", text)
    assert "↓" in text


def test_protocols_are_tables_of_their_own_with_the_field_that_differs(two_runs):
    other = result({"fid_digits_1k": 1.0}, protocol={"split": "test"})
    write_result(two_runs / "0" / "evaluations" / "other.json", other)
    text = " ".join(read_page(two_runs).text)
    assert "Protocol 2 of 2" in text
    assert re.search(r"Here:\s+split\s+test", text)


def test_curves_of_a_score_measured_in_two_ways_do_not_share_a_drawing(two_runs):
    assert page(read_report([two_runs])).count("<h3>fid_digits_1k</h3>") == 1
    other = result({"fid_digits_1k": 8.8}, protocol={"split": "test"})
    write_result(two_runs / "1" / "evaluations" / "b.json", other)
    text = page(read_report([two_runs]))
    assert text.count("<h3>fid_digits_1k</h3>") == 2
    assert "protocol: split test" in text


def test_names_out_of_files_are_only_ever_text(tmp_path):
    name = HOSTILE.replace("/", "")
    run = make_run(tmp_path / name, [f"name={HOSTILE}"], name=HOSTILE, seed=HOSTILE)
    make_run(tmp_path / "other")
    (run / "metrics.csv").write_text('step,train/loss,"eval/<b>x"\n10,1,1\n20,2,nan\n')
    write_result(run / "evaluations" / "a.json", result({HOSTILE: 1.0}, sampler=HOSTILE, weights=HOSTILE))
    (run / "evaluations" / f"{name}.json").write_text("{")
    (run / "samples" / name).mkdir()
    shutil.copy(run / "samples" / "ema" / "00000040.png", run / "samples" / name / "00000040.png")
    reader = read_page(tmp_path)
    assert reader.open == []
    assert not reader.all("script")
    assert not reader.all("b") or all("onerror" not in attributes for _, attributes in reader.tags)
    assert all(attributes["src"].startswith("data:image/png") for attributes in reader.all("img"))
    assert name in "".join(reader.text)


def test_empty_and_broken_runs_are_sentences_on_the_page(tmp_path):
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    (tmp_path / "empty" / "metrics.csv").write_text("")
    text = " ".join(read_page(tmp_path).text)
    for sentence in ("There are no results yet", "so there are no curves", "has drawn samples yet", "not known"):
        assert sentence in text
    broken = make_run(tmp_path / "broken", overrides=None, rows=["10,nan,1,1,1,,", "20,inf,1,1,1,,"])
    (broken / "samples" / "ema" / "00000040.png").write_bytes(b"GIF89a")
    text = " ".join(read_page(tmp_path).text)
    for sentence in (
        "NaN, infinite or beyond 1e30, marked by crosses: train/loss (2, first at step 10)",
        "00000040.png cannot be shown",
        "derived from its settings",
    ):
        assert sentence in text


def test_the_command_writes_the_page_and_says_where(two_runs, tmp_path, capsys):
    out = tmp_path / "pages" / "report.html"
    main([str(two_runs), "--out", str(out)])
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert "2 runs in" in capsys.readouterr().out


def test_a_wrong_folder_is_one_line_and_exit_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        main([str(tmp_path / "typo"), "--out", str(tmp_path / "report.html")])
    assert exit.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_runs_are_named_by_their_options_and_a_fact_has_one_value(two_runs):
    about = {"clip": "StaticThresholding()", "objective": "Eps()", "sampler": "DDIM(timestep_spacing=uniform, eta=0.5)"}
    for run, schedule in (("0", "linear(num_timesteps=100)"), ("1", "cosine(num_timesteps=100)")):
        values = result({"fid_digits_1k": 9.0}, step=41, schedule=schedule, weights_sha256="ab" * 32, **about)
        write_result(two_runs / run / "evaluations" / f"{'ab'[int(run)]}.json", values)
    reader = read_page(two_runs)
    text = " ".join(reader.text)
    assert "schedule=linear" in text
    for name in ("StaticThresholding", "Eps(", "DDIM("):
        assert name not in text
    assert "ddim(eta=0.5)" in text
    running = re.sub(r"<table.*?</table>|data:[^\"]*", "", page(read_report([two_runs])), flags=re.DOTALL)
    assert not re.search(r"\b[0-9a-f]{12,}\b", running)  # a hash
    heads = [text.strip() for text in reader.text if text.strip()]
    assert heads.count("schedule") == 1  # of the runs, not again in the results


def test_failed_runs_stand_apart(two_runs):
    failed = make_run(two_runs / "2", ["schedule=linear", "seed=7"], rows=[], seed=7)
    (failed / "nonfinite").mkdir()
    (failed / "nonfinite" / "00000003.pt").write_bytes(b"")
    reader = read_page(two_runs)
    assert "The loss became NaN or infinite at step 3." in reader.text
    assert any("2 runs, differing in schedule" in each for each in reader.text)
    assert len(reader.all("img")) == 6  # those of the other two


def test_settings_that_differ_come_first_and_many_are_folded(tmp_path):
    for k in range(2):
        make_run(tmp_path / str(k), **{f"field{n}": n + k for n in range(8)})
    text = page(read_report([tmp_path]))
    assert text.index(">field5<") < text.index("2 more settings that differ") < text.index(">field6<")
    assert text.index(">field0<") < text.index(">parameters<") < text.index(">minutes of training<")


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_a_browser_shows_three_runs_without_overflow_errors_or_requests(chromium, two_runs, tmp_path, width, scheme):
    make_run(two_runs / "2" / HOSTILE.replace("/", ""), name="x" * 200, seed=7)
    path = tmp_path / "report.html"
    path.write_text(page(read_report([two_runs])))
    opened = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints, requests = [], []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(path.as_uri())
    assert opened.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 0)")
    small = opened.locator("label.zoom img").first.bounding_box()["width"]
    opened.locator("label.zoom").first.click()
    assert opened.locator("label.zoom img").first.bounding_box()["width"] > small
    opened.locator("label.zoom").first.click()
    opened.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    assert opened.locator("section").count() >= 7
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    opened.close()
