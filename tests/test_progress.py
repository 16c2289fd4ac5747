"""Progress of a command in a log."""

import sys
import time

from methods import _progress


def test_a_log_gets_whole_lines_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "EVERY", 0.2)
    started = time.monotonic()
    with _progress.progress("fig_test", "call") as bar:
        bar.reset(total=40)
        for k in range(40):
            bar.set_postfix_str(f"method {k}")
            time.sleep(0.02)
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= (time.monotonic() - started) / 0.2
    assert all(line.startswith("fig_test: ") and "of 40 calls" in line and "left, method " in line for line in lines)


def test_a_unit_that_takes_long_does_not_keep_the_log_silent(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "EVERY", 0.2)
    with _progress.progress("fig_test", "call", 2) as bar:
        bar.set_postfix_str("slow one")
        time.sleep(1.0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert lines[0].startswith("fig_test: 0 of 2 calls")


def test_a_short_or_silent_run_prints_nothing(capsys):
    for silent in (False, True):
        with _progress.progress("fig_test", "call", 3, silent=silent) as bar:
            bar.update(3)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with _progress.progress("fig_test", "call", 3) as bar:
        bar.update(3)
    assert "\r" in capsys.readouterr().err
