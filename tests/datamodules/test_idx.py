import struct

import pytest
import torch

from datamodules.errors import DataError
from datamodules.idx import parse_idx


def header(*shape, kind=8, zeros=b"\0\0"):
    return zeros + bytes([kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


FILE = header(2, 3) + bytes([0, 1, 2, 3, 4, 255])


def test_values_and_shape_are_those_of_the_file():
    parsed = parse_idx(FILE, "file")
    assert parsed.dtype == torch.uint8
    assert parsed.tolist() == [[0, 1, 2], [3, 4, 255]]


@pytest.mark.parametrize("shape", [(24,), (4, 6), (2, 3, 4), (1, 2, 3, 4)])
def test_last_axis_varies_fastest(shape):
    assert torch.equal(parse_idx(header(*shape) + bytes(range(24)), "file"), torch.arange(24).byte().reshape(shape))


def test_sizes_are_big_endian():
    assert parse_idx(header(256) + bytes(256), "file").shape == (256,)


def test_result_may_be_written_to_and_leaves_the_bytes_alone():
    contents = bytes(FILE)
    parse_idx(contents, "file").fill_(9)
    assert parse_idx(contents, "file").tolist() == [[0, 1, 2], [3, 4, 255]]


@pytest.mark.parametrize("length", range(len(FILE)))
def test_truncated_file_is_refused_by_name(length):
    with pytest.raises(DataError, match="some/labels is damaged"):
        parse_idx(FILE[:length], "some/labels")


@pytest.mark.parametrize(
    "contents",
    [
        FILE + b"\0",
        header(2, 3, zeros=b"\1\0") + FILE[12:],
        header(2, 3, zeros=b"\0\1") + FILE[12:],
        header(2, 3, kind=9) + FILE[12:],
        header(2, 3, kind=13) + FILE[12:],
        header(),
        header() + b"\7",
        header(1, 1, 1, 1, 1) + b"\7",
        header(3, 3) + FILE[12:],
        header(2**32 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1) + FILE[12:],
        b"\x1f\x8b" + FILE[2:],
        b"<html>404</html>",
    ],
    ids=[
        "a byte too many",
        "first byte",
        "second byte",
        "signed bytes",
        "floats",
        "no axes",
        "no axes but a value",
        "five axes",
        "shape beyond the values",
        "shape beyond any memory",
        "still compressed",
        "a web page",
    ],
)
def test_wrong_file_is_refused_by_name(contents):
    with pytest.raises(DataError, match="some/labels is damaged"):
        parse_idx(contents, "some/labels")


def test_error_states_both_lengths():
    with pytest.raises(DataError, match="promises 9 values, it holds 6"):
        parse_idx(header(3, 3) + FILE[12:], "file")
