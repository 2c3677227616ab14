import sys

from foveal.tasks import progress
from foveal.tasks.progress import reading_bar, steps_bar


def test_bars_are_drawn_in_the_terminal_alone(monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # stdout is none: it may be a file
    with reading_bar("opening") as step:
        step(1, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "opening" in captured.err
    assert "50%" in captured.err
    with steps_bar() as step_of:
        step_of("checking", 1, 4)
        step_of("edge", 4, 4)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "edge" in captured.err
    assert "100%" in captured.err


def test_elsewhere_steps_are_lines_at_times(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with reading_bar("opening") as step, steps_bar() as step_of:
        for done in range(1, 10):
            now[0] += 10
            step(done, 9)
            step_of("checking" if done < 5 else "edge", done, 9)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [  # more than 30 s after the one before
        "opening: 4/9",
        "checking: 4/9",
        "opening: 8/9",
        "edge: 8/9",
    ]
