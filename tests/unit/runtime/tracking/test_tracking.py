"""Metrics that survive being read back, a display that fits where it is shown, and curves that are drawn."""

import io
import json
import math

import pytest
from PIL import Image
from rich.console import Console

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.tracking import MetricsFile, Reporter, draw_curves, read_metrics
from vlmdsl.runtime.tracking.curves import _draw_chance, panels_of
from vlmdsl.runtime.tracking.metrics import loss_at_chance
from vlmdsl.runtime.tracking.progress import LiveProgress, PlainProgress, describe, progress

RECORD = {
    "step": 20,
    "loss": 3.5,
    "terms/clip": 3.0,
    "terms/ssl": 0.5,
    "temperature": 0.0699,
    "clip.accuracy": 0.25,
    "clip.chance": 4.85,
    "ssl.chance": 1.0,
    "gradient_norm": 0.7,
    "learning_rate": 1e-3,
    "samples_per_second": 812.3,
}


def test_what_is_logged_is_read_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    file.log({"step": 1, "loss": 0.1, "gradient_norm": math.inf})
    assert read_metrics(path)[0]["loss"] == 0.1, "a record must be in the file before the file is closed"
    assert json.loads(path.read_text())["gradient_norm"] is None
    file.close()
    again = MetricsFile(path)
    again.log({"step": 2, "loss": 0.2})
    again.close()
    assert [record["step"] for record in read_metrics(path)] == [1, 2]
    assert math.isnan(read_metrics(path)[0]["gradient_norm"])


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 1.0}]


def test_chance_is_known_only_if_every_term_has_it():
    assert loss_at_chance(RECORD) == pytest.approx(5.85)
    assert loss_at_chance({name: value for name, value in RECORD.items() if name != "ssl.chance"}) is None
    assert loss_at_chance({"step": 1, "loss": 1.0}) is None


def test_a_record_in_words():
    words = "loss 3.500 (chance 5.850)  clip 3.000  ssl 0.500  clip accuracy 25.0 %  temperature 0.0699  812 samples/s"
    assert describe(RECORD) == words
    assert describe({"step": 1, "loss": -1e-5, "terms/a": -1e-5, "terms/b": -0.5}) == "loss 0.000  a 0.000  b -0.500"


def test_elsewhere_than_on_a_terminal_progress_is_plain_lines():
    stream = io.StringIO()
    display = progress(400, stream)
    assert isinstance(display, PlainProgress)
    display.log(RECORD)
    display.close()
    assert stream.getvalue().startswith("step  20/400  loss 3.500")
    assert "\x1b" not in stream.getvalue()


def test_on_a_terminal_progress_is_a_bar():
    stream = io.StringIO()
    display = LiveProgress(400, Console(file=stream, force_terminal=True, width=200))
    display.log(RECORD)
    display.close()
    assert "20/400" in stream.getvalue()
    assert "loss 3.500" in stream.getvalue()


def test_the_reporter_tells_every_tracker_and_closes_it_after_a_failure(tmp_path, capsys):
    class Listener:
        heard, closed = [], False

        def log(self, record):
            self.heard.append(record)

        def close(self):
            self.closed = True

    listener = Listener()

    def failing_run():
        with Reporter(tmp_path / "metrics.jsonl", 400, trackers=(listener,)) as reporter:
            reporter.log(RECORD)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failing_run()
    assert listener.heard == [RECORD]
    assert listener.closed
    assert read_metrics(tmp_path / "metrics.jsonl") == [RECORD]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "step  20/400" in captured.err


def test_an_inactive_reporter_leaves_no_trace(tmp_path, capsys):
    with Reporter(tmp_path / "metrics.jsonl", 400, active=False) as reporter:
        reporter.log(RECORD)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""


def test_every_number_has_a_place_in_the_curves():
    panels = {panel.title: panel for panel in panels_of([RECORD])}
    drawn = [name for panel in panels.values() for name in panel.lines]
    assert sorted(drawn) == sorted(name for name in RECORD if name != "step" and not name.endswith(".chance"))
    assert panels["loss"].chance
    assert list(panels["loss"].lines) == ["loss", "terms/clip", "terms/ssl"]


def test_the_terms_of_flows_are_drawn_side_by_side_and_their_sums_are_not():
    pairs = {
        "step": 1,
        "loss": 2.0,
        "terms/pairs.contrast": 2.0,
        "pairs.contrast.accuracy": 0.5,
        "pairs.contrast.chance": 2.1,
    }
    panels = {panel.title: panel for panel in panels_of([pairs, {"step": 2, "loss": 6.0, "terms/texts.mlm": 6.0}])}
    assert set(panels) == {"loss", "in-batch accuracy, percent"}
    assert sorted(panels["loss"].lines) == ["terms/pairs.contrast", "terms/texts.mlm"]
    assert panels["loss"].chance


def test_stage_and_flow_of_a_record_are_names(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.log({**RECORD, "stage": "main", "flow": "pairs"})
    file.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [RECORD]
    assert describe({**RECORD, "stage": "main", "flow": "pairs"}).startswith("main  pairs  loss 3.500")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1, "stage": 3}\n')
    with pytest.raises(DiagnosticError):
        read_metrics(tmp_path / "metrics.jsonl")


def test_curves_are_a_picture(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for step in range(0, 400, 20):
        file.log({**RECORD, "step": step, "loss": 5.0 * 0.99**step, "gradient_norm": math.nan if step == 100 else 1.0})
    file.close()
    draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 400
        assert len(picture.convert("RGB").getcolors(1_000_000)) > 20


@pytest.mark.parametrize("text", ["", '{"step": 1, "loss": 1.0}\n'])
def test_few_records_are_not_a_failure(text, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(text)
    draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file() == bool(text)


def test_chance_is_a_line_that_follows_a_queue():
    def drawn(levels):
        from matplotlib.figure import Figure

        axes = Figure().add_subplot()
        _draw_chance(axes, [RECORD | {"step": step, "clip.chance": level} for step, level in enumerate(levels)])
        (line,) = axes.lines
        return list(line.get_xdata()), list(line.get_ydata()), line.get_label()

    assert drawn([0.0, 2.0, 3.0]) == ([0, 1, 2], [1.0, 3.0, 4.0], "chance 4.00")
    assert drawn([3.0, 3.0])[1] == [4.0, 4.0]


def test_a_legend_lies_on_no_data():
    from matplotlib.figure import Figure

    from vlmdsl.runtime.tracking.titles import set_title

    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.bar([0, 1], [1.0, 1.0])
    for number in range(5):
        axes.axhline(number / 5, label=f"level {number}")
    set_title(axes, "a measure", legend=True)
    figure.draw_without_rendering()
    legend, title = axes.get_legend().get_window_extent(), axes.title.get_window_extent()
    assert legend.y0 >= axes.bbox.y1
    assert title.y0 >= legend.y1
