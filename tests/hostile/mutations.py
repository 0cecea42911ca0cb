"""Ways to change a file: blindly, or so that the change gets past its checksums."""

import io
import itertools
import pickletools
import struct
import zipfile

INTERESTING = [
    *(0, 1, 2, 3, 4, 7, 8, 15, 16, 63, 64, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1),
    *(2**31, 2**32 - 1, 10**9, 10**12, 2**40, 2**63 - 1, 2**64 - 1),
]


def flip_bits(random, data, others):
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 8])):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def set_bytes(random, data, others):
    changed = bytearray(data)
    for _ in range(random.choice([1, 2, 4, 16])):
        changed[random.randrange(len(changed))] = random.choice([0, 255, random.randrange(256)])
    return bytes(changed)


def set_integer(random, data, others):
    size = random.choice([1, 2, 4, 8])
    if len(data) < size:
        return data
    place = random.randrange(len(data) - size + 1)
    value = random.choice(INTERESTING) % 256**size
    return data[:place] + value.to_bytes(size, random.choice(["little", "big"])) + data[place + size :]


def truncate(random, data, others):
    return data[: random.randrange(len(data))]


def block(random, data):
    start = random.randrange(len(data))
    return start, min(len(data), start + random.choice([1, 2, 8, 64, 1024, len(data)]))


def delete(random, data, others):
    start, end = block(random, data)
    return data[:start] + data[end:]


def repeat(random, data, others):
    start, end = block(random, data)
    return data[:end] + data[start:end] * random.choice([1, 1, 2, 10]) + data[end:]


def insert(random, data, others):
    place = random.randrange(len(data))
    return data[:place] + random.randbytes(random.choice([1, 2, 8, 64])) + data[place:]


def splice(random, data, others):
    other = random.choice(others)
    return data[: random.randrange(len(data))] + other[random.randrange(len(other)) :]


BLIND = [flip_bits, set_bytes, set_integer, truncate, delete, repeat, insert, splice]


def blind(random, data, others):
    """Any of the above."""
    return random.choice(BLIND)(random, data, others) if data else data


# ---------------------------------------------------------------------- archives


def in_archive(random, data, others):
    """Changes a record, or the list of records, of a zip archive, and writes the archive anew with right checksums."""
    records = _records(data)
    names = [name for name, _ in records]
    way = random.randrange(8)
    index = random.randrange(len(records))
    if way <= 3:
        small = [place for place, (name, content) in enumerate(records) if content and len(content) < 10**5]
        index = random.choice(small or [index])
        records[index] = (names[index], blind(random, records[index][1], [records[index][1]]))
    elif way == 4:
        del records[index]
    elif way == 5:
        records.append((names[index], records[random.randrange(len(records))][1]))
    elif way == 6:
        name = random.choice(
            [names[index].upper(), "../" + names[index], "/etc/x", names[index] + "\0", "data.pkl", "x"]
        )
        records[index] = (name, records[index][1])
    else:
        random.shuffle(records)
    compression = zipfile.ZIP_DEFLATED if random.random() < 0.05 else zipfile.ZIP_STORED
    return _archive(records, compression)


def in_pickle(random, data, others):
    """Changes the instructions of the pickle in a checkpoint, and writes the archive anew with right checksums."""
    records = _records(data)
    index = next(place for place, (name, _) in enumerate(records) if name.endswith("data.pkl"))
    pickled = change_pickle(random, records[index][1])
    records[index] = (records[index][0], pickled)
    return _archive(records)


def change_pickle(random, pickled):
    """Changes some instructions, and leaves the others as they are."""
    positions = [position for _, _, position in pickletools.genops(pickled)] + [len(pickled)]
    steps = [pickled[start:end] for start, end in itertools.pairwise(positions)]
    for _ in range(random.choice([1, 1, 1, 2, 5])):
        place = random.randrange(1, len(steps) - 1)
        way = random.randrange(9)
        if way == 0:
            del steps[place]
        elif way == 1:
            steps.insert(place, steps[random.randrange(1, len(steps) - 1)])
        elif way == 2:
            other = random.randrange(1, len(steps) - 1)
            steps[place], steps[other] = steps[other], steps[place]
        elif way == 3:
            steps.insert(place, random.choice(SNIPPETS))
        else:
            kind = random.choice(["number", "text", "global", "any"])
            alike = [number for number, step in enumerate(steps) if step[:1] in KINDS.get(kind, step[:1])]
            place = random.choice(alike or [place])
            steps[place] = random.choice(REPLACEMENTS[kind])
    return b"".join(steps)


def number(value):
    size = (value.bit_length() + 8) // 8
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def text(value):
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def named(module, name):
    return f"c{module}\n{name}\n".encode()


KINDS = {"number": (b"K", b"M", b"J", b"\x8a", b"G"), "text": (b"X",), "global": (b"c",)}
NUMBERS = [number(value) for value in [*INTERESTING, -1, -(2**63), 2**200]] + [b"G" + b"\xff" * 8, b"G" + b"\x7f" * 8]
TEXTS = [
    text(value) for value in ["", "0", "storage", "cpu", "meta", "cuda:9", "\0", "é" * 500, "__class__", "state_dict"]
]
GLOBALS = [
    named(*path)
    for path in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("__builtin__", "bytearray"),
        ("__builtin__", "set"),
        ("__builtin__", "complex"),
        ("_codecs", "encode"),
        ("collections", "OrderedDict"),
        ("collections", "Counter"),
        ("torch", "FloatTensor"),
        ("torch", "Tensor"),
        ("torch", "Size"),
        ("torch", "device"),
        ("torch", "float32"),
        ("torch", "DoubleStorage"),
        ("torch", "ByteStorage"),
        ("torch.storage", "UntypedStorage"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_tensor_v3"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_qtensor"),
        ("torch._utils", "_rebuild_sparse_tensor"),
        ("torch._utils", "_rebuild_meta_tensor_no_storage"),
        ("torch._tensor", "_rebuild_from_type_v2"),
        ("torch.nn.parameter", "Parameter"),
    ]
]
SNIPPETS = [
    *(b"N", b"\x88", b"\x89", b"(", b"t", b")", b"]", b"}", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u", b"R"),
    *(
        b"b",
        b"Q",
        b"\x81",
        b"h\x00",
        b"h\x05",
        b"q\x00",
        b"q\x05",
        b"r\xff\xff\xff\xff",
        b"j\xff\xff\xff\xff",
        b".",
        b"0",
    ),
    *(b"\x85" * 200, b")" + b"\x85" * 20000, b"]h\x00a", b"\x95" + b"\xff" * 8, b"B\xff\xff\xff\xff", b"I1\n"),
]
REPLACEMENTS = {
    "number": NUMBERS,
    "text": TEXTS,
    "global": GLOBALS,
    "any": [*NUMBERS, *TEXTS, *GLOBALS, *SNIPPETS],
}


def _records(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def _archive(records, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in records:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


# ---------------------------------------------------------------------- configurations

VALUES = [
    *(
        "null",
        "true",
        "-1",
        "0",
        "1",
        "1e400",
        ".nan",
        "10000000000",
        "0x7fffffffffffffff",
        "'x'",
        "''",
        "[]",
        "{}",
        "[[]]",
    ),
    *(
        "[1, 2]",
        "{a: 1}",
        "&a [*a]",
        "*a",
        "!!python/object/apply:os.system ['true']",
        "!!binary x",
        "2001-99-99",
        "? x",
        "|",
    ),
    *(
        "{class_path: os.system}",
        "{class_path: torch.optim.Adam, init_args: {lr: x}}",
        "torch.optim.SGD",
        "os.system",
        "\t",
    ),
    *(
        "{class_path: zoo.optim.OneCycle}",
        "file:///etc/passwd",
        "http://127.0.0.1:9/x.yaml",
        "é\u2028",
        "a" * 5000,
        "[" * 500,
    ),
]


def in_text(random, data, others):
    """Changes lines, or values, of a configuration."""
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(random.choice([1, 1, 2, 4])):
        place = random.randrange(len(lines))
        way = random.randrange(7)
        if way == 0:
            del lines[place]
        elif way == 1:
            lines.insert(place, random.choice(lines))
        elif way == 2:
            lines[place] = "  " * random.randrange(4) + lines[place].lstrip()
        elif way == 3:
            lines.insert(place, random.choice(VALUES))
        else:
            key, colon, _ = lines[place].partition(":")
            lines[place] = f"{key}{colon} {random.choice(VALUES)}"
        lines = lines or [""]
    return "\n".join(lines).encode()
