"""SPEC files as beamlines leave them: spectra between points, repeated headers, aborted scans, numbers given twice."""

import codecs

import numpy as np
import pytest
from pendel.io.spec import parse_spec

HEADER = "#F /data/a.spec\n#O0 Delta  Theta\n#O1 camdist  Energy\n#o0 del th\n#o1 cam en\n"


def scan(number=54, rows=5, *, command="ascan  th 0 0.4  4 1", columns="Theta  pm detector", between="", after=""):
    lines = [f"#S {number}  {command}", "#D Tue Feb 04 12:28:23 2020", "#P0 32.1 0.2", "#P1 500 9", f"#L {columns}"]
    lines += [f"{0.1 * i:.3f} {i}{between}" for i in range(rows)]
    return "\n".join([*lines, after]) + "\n"


@pytest.fixture
def spec(tmp_path):
    def write(text, name="a.spec"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    "between",
    [
        "\n@A 0 0 1 4\\\n 7 2 0 0",
        "\n@A 0 0 1 4",
        "\n@A 1\\\n2\\\n3\n@B 4 5",
        "\n@MCA 1 2 3\\\n4 5 6\n",
        "\n#C Tue Feb 04. a comment",
        "\n#@MCA 16C\n#@CHANN 16 0 15 1",
        "\n\n",
        "\n@A 1 2\\\n#C cut off",
    ],
)
def test_what_is_no_point_is_passed_over(spec, between):
    record = parse_spec([spec(HEADER + scan(between=between))])
    assert record.positions() == pytest.approx(0.1 * np.arange(5)) and record.readings("pm detector").tolist() == [
        *range(5)
    ]
    assert record.motors == {"Delta": 32.1, "Theta": 0.2, "camdist": 500, "Energy": 9} and record.motor == "Theta"


@pytest.mark.parametrize("mark, encoding", [(b"", "utf-8-sig"), (b"", "utf-16"), (codecs.BOM_UTF16_BE, "utf-16-be")])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_byte_order_marks(spec, mark, encoding, ends):
    header = spec(mark + HEADER.replace("\n", ends).encode(encoding), "header.txt")
    points = spec(mark + scan().replace("\n", ends).encode(encoding), "scan.txt")
    assert len(parse_spec([points, header]).table) == 5


def test_names_of_columns_set_apart_by_single_spaces(spec):
    record = parse_spec([spec(HEADER + scan(columns="Theta Monitor"))])
    assert record.columns == ["Theta", "Monitor"] and record.positions()[-1] == pytest.approx(0.4)


def test_several_points_in_a_line(spec):
    text = HEADER + "#S 1  ascan  th 0 0.4  4 1\n#N 2 2\n#L Theta  Monitor\n0 1 0.1 2\n0.2 3 0.3 4\n0.4 5\n"
    assert parse_spec([spec(text)]).table.tolist() == [[0, 1], [0.1, 2], [0.2, 3], [0.3, 4], [0.4, 5]]


def test_positions_as_commanded_where_the_table_has_none(spec):
    record = parse_spec([spec(HEADER + scan(columns="H  Monitor", rows=3))])
    assert record.positions() == pytest.approx([0, 0.1, 0.2])
    with pytest.raises(ValueError, match="line 6: scan 54: expected the column Theta in a relative scan"):
        parse_spec([spec(HEADER + scan(columns="H  Monitor", command="dscan  th 0 0.4  4 1"))])


def test_headers_that_are_repeated(spec):
    moved = "#P0 99 99\n#L Theta  pm detector\n0.5 5\n"  # after a pause: the scan began at the first
    record = parse_spec([spec(HEADER + scan() + moved)])
    assert len(record.table) == 6 and record.motors["Delta"] == 32.1
    with pytest.raises(ValueError, match="expected the columns .* got others in one table"):
        parse_spec([spec(HEADER + scan() + "#L Theta  other\n0.5 5\n")])
    # a header of other motors further down is none of the first's
    other = "#F /data/a.spec\n#O0 Theta  Delta\n#o0 th del\n" + scan(55).replace("#P1 500 9\n", "")
    assert parse_spec([spec(HEADER + scan() + other)], 55).motors == {"Theta": 32.1, "Delta": 0.2}


def test_an_aborted_scan(spec):
    record = parse_spec(
        [spec(HEADER + scan(rows=3, after="#C Tue Feb 04 12:30:00 2020.  Scan aborted after 3 points."))]
    )
    assert record.aborted and len(record.table) == 3 and record.positions() == pytest.approx([0, 0.1, 0.2])
    assert not parse_spec([spec(HEADER + scan())]).aborted


def test_one_number_given_twice(spec):
    aborted = scan(rows=0, after="#C Scan aborted after 0 points.")
    assert len(parse_spec([spec(HEADER + aborted + scan())], 54).table) == 5
    assert len(parse_spec([spec(HEADER + scan() + scan())], 54).table) == 5  # a copy
    copy = spec(HEADER + scan(), "copy.spec")
    assert len(parse_spec([spec(HEADER + scan()), copy], 54).table) == 5
    path = spec(HEADER + scan(rows=4) + scan())
    assert len(parse_spec([path], 54, points=4).table) == 4 and len(parse_spec([path], 54, points=5).table) == 5
    with pytest.raises(
        ValueError, match="expected scan 54 once, got 2 .*a.spec: line 6 with 4 points, .* line 16 with 5"
    ):
        parse_spec([path], 54)
    with pytest.raises(ValueError, match=r"expected one scan, got 2 \(give its number\)"):
        parse_spec([spec(HEADER + scan(53) + scan(54))])


@pytest.mark.parametrize(
    "text, message",
    [
        (scan(after="0.5"), "line 16: expected 2 columns, got 1; is the file cut off"),
        (scan(after="0.5 5 6 7"), "line 16: expected 2 columns, got 4"),
        (scan(after="0.5 x"), "line 16: expected numbers, got '0.5 x'"),
        (scan(after="0.5 1_000"), "line 16: expected numbers"),
        (scan(after="nan 7"), "scan 54: expected a position of Theta at point 5, got none"),
        (scan(command="ascan  th a 0.4  4 1"), "expected ascan MOTOR START STOP INTERVALS TIME"),
        (scan(command="ascan  th nan 0.4  4 1"), "expected ascan MOTOR START STOP INTERVALS TIME"),
        (scan(command="loopscan 5 1"), "expected ascan MOTOR START STOP INTERVALS TIME, got 'loopscan 5 1'"),
        (scan().replace("#P1 500 9", "#P1 500 x"), "line 9: expected a header of a SPEC file, got '#P1 500 x'"),
        (scan().replace("#P1", "#P7"), "line 9: expected #O7 with 2 motor names, got no such line"),
        (scan().replace("#P1", "#UIMR5 1 2\n#P1"), "line 9: expected #UIMR5 minX sizeX minY sizeY"),
        (scan().replace("#P1", "#UIMDET\n#P1"), "line 9: expected a header of a SPEC file, got '#UIMDET'"),
        (scan().replace("#L Theta  pm detector\n", ""), "line 10: expected 0 columns, got 2"),
        ("#S 9999999999999999999999 ascan\n", "expected one scan, got 0"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(spec, text, message):
    with pytest.raises(ValueError, match=f"a.spec.*{message}"):
        parse_spec([spec(HEADER + text)]).positions()


def test_a_file_may_not_ask_for_all_memory(spec):
    motors = "#O0 " + "  ".join(f"m{i}" for i in range(10_001))
    with pytest.raises(ValueError, match="line 1: expected at most 10000 motors"):
        parse_spec([spec(motors + "\n" + scan())])
    with pytest.raises(ValueError, match=r"expected scan 54 once, got 99"):
        parse_spec([spec(HEADER + "".join(scan(rows=n) for n in range(105)))], 54, points=200)
