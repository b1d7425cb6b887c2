"""Tables, templates, ages, progress."""

import io
import json
import os
import pty
import threading
import time

import pytest

from seaway.cli.flags import UsageError
from seaway.cli.output import (
    Progress,
    inspection,
    listing,
    table,
    terminal_columns,
)

COLUMNS = {"NETWORK ID": "ID", "NAME": "Name", "DRIVER": "Driver"}
RECORDS = [
    {"ID": "k5w3", "Name": "backend", "Driver": "bridge", "Internal": True, "Mtu": 1450},
    {"ID": "qx2m", "Name": "lan", "Driver": "macvlan", "Internal": False, "Mtu": None},
]


def test_a_table_is_aligned():
    """Upper-case headings, two spaces between columns, nothing at the end of a line."""
    assert listing(RECORDS, COLUMNS) == (
        "NETWORK ID  NAME     DRIVER\nk5w3        backend  bridge\nqx2m        lan      macvlan\n"
    )
    assert listing(RECORDS, COLUMNS) == listing(RECORDS, COLUMNS, style="table")


def test_an_empty_table_has_its_headings():
    """No records is the heading alone, as Docker prints it."""
    assert "NETWORK ID  NAME  DRIVER\n" == listing([], COLUMNS)


def test_a_table_of_strings():
    """A last cell is not padded, an empty one leaves no spaces behind."""
    assert "A  B\n1\n" == table(["A", "B"], [["1", ""]])


def test_json_is_one_object_a_line():
    """Each line parses on its own and holds every field, also those without a column."""
    lines = listing(RECORDS, COLUMNS, style="json").splitlines()

    assert RECORDS == [json.loads(line) for line in lines]


def test_quiet_prints_one_field():
    """--quiet is the identifiers, a line each."""
    assert "k5w3\nqx2m\n" == listing(RECORDS, COLUMNS, quiet="ID")
    assert "" == listing([], COLUMNS, quiet="ID")


@pytest.mark.parametrize(
    ("template", "first"),
    [
        ("{{.Name}} {{.Driver}}", "backend bridge"),
        ("{{ .Name }}", "backend"),
        (r"{{.Name}}\t{{.Mtu}}", "backend\t1450"),
        ("no fields", "no fields"),
        ("{{.Internal}}", "true"),
        ("{{json .Name}}", '"backend"'),
        ("<{{.ID}}>", "<k5w3>"),
    ],
)
def test_templates(template, first):
    """Go's field syntax, a line for each record."""
    assert first == listing(RECORDS, COLUMNS, style=template).splitlines()[0]


def test_a_whole_record_as_json():
    """{{json .}} is Docker users' way to ask for everything."""
    assert RECORDS[1] == json.loads(listing(RECORDS[1:], {}, style="{{json .}}"))


def test_a_missing_value_is_empty():
    """None prints as nothing."""
    assert "[]\n" == listing(RECORDS[1:], COLUMNS, style="[{{.Mtu}}]")


def test_fields_of_fields():
    """Dots lead into nested objects; an object itself prints as JSON."""
    record = {"State": {"Health": {"Status": "ok"}, "Pids": [1, 2]}}

    assert "ok\n" == listing([record], {}, style="{{.State.Health.Status}}")
    assert "[1, 2]\n" == listing([record], {}, style="{{.State.Pids}}")


def test_a_template_can_be_a_table():
    """``table`` before a template adds headings: the table's own, or the field's name."""
    style = r"table {{.ID}}\t{{.Mtu}}"

    assert "NETWORK ID  MTU\nk5w3        1450\nqx2m\n" == listing(RECORDS, COLUMNS, style=style)


def test_a_template_table_without_tabs():
    """Fields that share a cell share a heading."""
    style = "table {{.Name}} {{.Driver}}"

    assert "NAME DRIVER\nbackend bridge\nlan macvlan\n" == listing(RECORDS, COLUMNS, style=style)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Nmae}}", "no field .Nmae here: there is .ID, .Name, .Driver, .Internal, .Mtu"),
        ("{{.Name.First}}", "no field .First here: there is nothing"),
        ("{{range .Name}}x{{end}}", "{{range .Name}} is not supported: only fields such as"),
        ("{{Name}}", "{{Name}} is not supported"),
        ("{{}}", "{{}} is not supported"),
    ],
)
def test_a_wrong_template_is_one_clear_line(template, message):
    """The message names the expression and what can be written instead."""
    with pytest.raises(UsageError) as caught:
        listing(RECORDS, COLUMNS, style=template)

    assert message in str(caught.value)


def test_a_template_is_checked_even_without_records():
    """A script's mistake shows before there is anything to list."""
    with pytest.raises(UsageError, match="not supported"):
        listing([], COLUMNS, style="{{len .}}")


def test_values_cannot_move_the_cursor():
    """Escape sequences and newlines in names and labels print as question marks."""
    record = {"Name": "a\x1b[2Jb\nc\té"}

    assert "NAME\na?[2Jb?c?é\n" == listing([record], {"NAME": "Name"})


def test_inspect_prints_an_array():
    """inspect is one indented JSON document; with a format, one line for each object."""
    assert RECORDS == json.loads(inspection(RECORDS))
    assert inspection(RECORDS).startswith('[\n    {\n        "ID": "k5w3"')
    assert "backend\nlan\n" == inspection(RECORDS, style="{{.Name}}")
    assert RECORDS[0] == json.loads(inspection(RECORDS, style="json").splitlines()[0])


@pytest.mark.parametrize(("told", "columns"), [("132", 132), ("0", 80), ("wide", 80), ("", 80)])
def test_the_width_of_the_terminal(monkeypatch, told, columns):
    """$COLUMNS counts if it is a number; without a terminal there are 80."""
    monkeypatch.setenv("COLUMNS", told)
    monkeypatch.setattr("sys.stdout", io.StringIO())

    assert columns == terminal_columns()


class Screen:
    """The far end of a terminal, and everything that was printed on it."""

    def __init__(self):
        self._master, slave = pty.openpty()
        self.terminal = os.fdopen(slave, "w")
        self.text = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        try:
            while data := os.read(self._master, 4096):
                self.text += data.decode()
        except OSError:  # EIO: the terminal is closed
            pass

    def wait_for(self, text):
        deadline = time.monotonic() + 10
        while text not in self.text:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.text!r}"
            time.sleep(0.005)

    def close(self):
        self.terminal.close()
        self._reader.join(10)
        assert not self._reader.is_alive()
        os.close(self._master)


@pytest.fixture
def screen():
    made = Screen()
    yield made
    made.close()


def test_progress_is_shown_and_erased(screen):
    """What takes long is named, its seconds are counted, and the line is gone at the end."""
    with Progress("Creating network backend", second=0.02, to=screen.terminal):
        screen.wait_for("\rCreating network backend ... 1 s\x1b[K")
        screen.wait_for("\rCreating network backend ... 2 s\x1b[K")
    screen.wait_for("s\x1b[K\r\x1b[K")

    assert screen.text.endswith("\r\x1b[K")


def test_progress_fits_into_the_line(screen, monkeypatch):
    """A line that would wrap could not be erased, so it is cut."""
    monkeypatch.setenv("COLUMNS", "20")

    with Progress("x" * 50, second=0.02, to=screen.terminal):
        screen.wait_for("\r" + "x" * 19 + "\x1b[K")


def test_what_is_quick_shows_no_progress(screen):
    """Nothing is printed in the first second, and the block does not wait for it."""
    begun = time.monotonic()
    with Progress("Waiting", second=60, to=screen.terminal):
        pass

    assert time.monotonic() - begun < 30
    screen.terminal.write("end")
    screen.terminal.flush()
    screen.wait_for("end")
    assert "end" == screen.text


def test_no_progress_without_a_terminal():
    """A log file or a pipe stays clean."""
    log = io.StringIO()
    with Progress("Waiting", second=0.001, to=log):
        pass

    assert "" == log.getvalue()
