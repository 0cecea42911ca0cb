"""What unpickling a file would make, found out without making it.

``torch.load(weights_only=True)`` runs no code, but it does what a file says: of a few hundred bytes it makes a tensor
of 10¹² elements, a ``bytearray`` of gigabytes, or a tuple so deep that the interpreter crashes. :func:`inspect` follows
the pickle's instructions with stand-ins for values, and accepts what ``torch.save`` writes of plain values and
tensors.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from zoo.checkpointing.archive import Records

_DEEPEST = 100
_TOO_DEEP = f"its values are nested more than {_DEEPEST} deep"
_MOST_DIMENSIONS = 64
_LARGEST_KEY = 2**61 - 2  # larger integers can be chosen so that all fall into one slot of a dict
_EXPANSION, _EXPANSION_FREE = 16, 10**6
_TENSORS, _TENSORS_FREE = 4, 2**26

_ITEM_SIZES = {
    "torch BFloat16Storage": 2,
    "torch BoolStorage": 1,
    "torch ByteStorage": 1,
    "torch CharStorage": 1,
    "torch ComplexDoubleStorage": 16,
    "torch ComplexFloatStorage": 8,
    "torch DoubleStorage": 8,
    "torch FloatStorage": 4,
    "torch HalfStorage": 2,
    "torch IntStorage": 4,
    "torch LongStorage": 8,
    "torch ShortStorage": 2,
    "torch.storage UntypedStorage": 1,
}


class InspectionError(ValueError):
    """A pickle that must not be loaded; says why."""


@dataclass(eq=False, slots=True)
class _Value:
    """Stands for a value that is no scalar.

    Args:
        kind: such as ``"list"``, or the name of the class or function that makes it.
        children: what is in it.
        bytes: of a storage.
        item_size: of a storage, in bytes.
        depth: at least, of a tuple.
    """

    kind: str
    children: list[Any] = field(default_factory=list)
    bytes: int = 0
    item_size: int = 0
    depth: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class _Global:
    """Stands for a class or function that the pickle names, ``"module name"``."""

    name: str
    trusted: bool = False


def inspect(records: Records, file_size: int) -> None:
    """Refuse a pickle that is more than plain values and tensors, or grows beyond its file.

    Classes that somebody, torch apart, passed to ``torch.serialization.add_safe_globals`` are accepted.

    Args:
        records: of the file.
        file_size: in bytes.

    Raises:
        InspectionError: it must not be loaded.
    """
    try:
        root = _Machine(records.sizes, file_size).run(records.pickle)
    except InspectionError:
        raise
    except Exception as error:  # an instruction that finds something else than it expects
        raise InspectionError(f"its pickle is damaged ({type(error).__name__})") from error
    _check_extent(root, _EXPANSION * len(records.pickle) + _EXPANSION_FREE)


class _Machine:
    """Follows the instructions that ``torch.save`` writes, pickle protocol 2."""

    def __init__(self, sizes: dict[str, int], file_size: int) -> None:
        self.sizes = sizes
        self.tensor_bytes = 0
        self.most_tensor_bytes = _TENSORS * file_size + _TENSORS_FREE
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.trusted = _trusted_globals()

    def run(self, pickled: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in _SCALARS:
                self.stack.append(argument)
            elif opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name])
            elif opcode.name in _CONTAINERS:
                self.stack.append(_Value(_CONTAINERS[opcode.name]))
            elif opcode.name in _OPERATIONS:
                _OPERATIONS[opcode.name](self, argument)
            else:
                raise InspectionError(f"its pickle has the instruction {opcode.name}, which torch does not write")
        return self.stack.pop()

    def stop(self, _: Any) -> None:
        if self.marked or len(self.stack) != 1:
            raise InspectionError("its pickle is damaged: it ends too soon")

    def protocol(self, version: int) -> None:
        if version != 2:
            raise InspectionError(f"its pickle is of protocol {version}, and torch writes protocol 2")

    def mark(self, _: Any) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def tuple_of(self, count: int) -> None:
        items = self.stack[-count:]
        del self.stack[-count:]
        self.push_tuple(items)

    def tuple_since_mark(self, _: Any) -> None:
        self.push_tuple(self.since_mark())

    def push_tuple(self, items: list[Any]) -> None:
        depth = 1 + max((item.depth for item in items if isinstance(item, _Value)), default=0)
        if depth > _DEEPEST:  # at once: a deep tuple takes long to follow to its end
            raise InspectionError(_TOO_DEEP)
        self.stack.append(_Value("tuple", items, depth=depth))

    def append(self, items: list[Any]) -> None:
        _value(self.stack[-1], "list").children.extend(items)

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise InspectionError("its pickle is damaged: a key without a value")
        target = _value(self.stack[-1], "dict", "collections OrderedDict", "collections Counter")
        for key in items[::2]:
            _check_key(key)
        target.children.extend(items)

    def named(self, name: str) -> None:
        if name in self.trusted:
            self.stack.append(_Global(name, trusted=True))
            return
        name = name.replace("__builtin__ ", "builtins ")  # Python 2's name, which protocol 2 has
        kind, _, member = name.partition(" ")
        is_dtype = kind == "torch" and isinstance(getattr(torch, member, None), torch.dtype)
        if name not in _CALLS and name not in _ITEM_SIZES and not is_dtype:
            raise InspectionError(f"it holds {name.replace(' ', '.')}, which is more than plain values and tensors")
        self.stack.append(_Global(name))

    def storage(self, _: Any) -> None:
        kind, storage_type, key, location, count = _value(self.stack.pop(), "tuple").children
        size = self.sizes.get(f"data/{key}") if type(key) is str else None
        if kind != "storage" or type(location) is not str or location.startswith("meta") or size is None:
            raise InspectionError("it names a record that is not in it")
        item_size = _ITEM_SIZES[storage_type.name]
        if type(count) is not int or count * item_size != size:
            raise InspectionError(f"the record data/{key} has {size} bytes, and its tensors want another number")
        self.stack.append(_Value("storage", bytes=size, item_size=item_size))

    def call(self, _: Any) -> None:
        arguments = _value(self.stack.pop(), "tuple").children
        function = self.stack.pop()
        if not isinstance(function, _Global):
            raise InspectionError("its pickle is damaged: it calls what is no function")
        if function.trusted:
            self.stack.append(_Value("trusted", arguments))
        elif function.name in _CALLS:
            self.stack.append(_CALLS[function.name](self, function.name, arguments))
        else:
            raise InspectionError(f"it calls {function.name.replace(' ', '.')}")

    def new_object(self, argument: Any) -> None:
        if not (isinstance(self.stack[-2], _Global) and self.stack[-2].trusted):
            raise InspectionError("it makes an object, which is more than plain values and tensors")
        self.call(argument)

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, _Value) and target.kind == "trusted":
            target.children.append(state)
            return
        # What a module's state_dict() has as an attribute: the version of each submodule.
        _value(target, "collections OrderedDict")
        attributes = _items(state)
        if attributes.keys() != {"_metadata"}:
            raise InspectionError("it gives a dictionary attributes that torch does not")
        for versions in _items(attributes["_metadata"]).values():
            if any(name == "version" and type(value) is not int for name, value in _items(versions).items()):
                raise InspectionError("the version of a module in it is no number")

    # ------------------------------------------------------------------ what is called

    def tensor(self, name: str, arguments: list[Any]) -> _Value:
        storage, offset, size, stride = arguments[:4]
        _value(storage, "storage")
        sizes, strides = _numbers(size), _numbers(stride)
        item_size = storage.item_size
        if name.endswith("_v3"):
            item_size = getattr(torch, arguments[6].name.partition(" ")[2]).itemsize
        if type(offset) is not int or offset < 0 or len(sizes) != len(strides) or len(sizes) > _MOST_DIMENSIONS:
            raise InspectionError("a tensor in it has a shape that no tensor has")
        elements = math.prod(sizes)
        last = offset + sum((length - 1) * step for length, step in zip(sizes, strides, strict=True))
        if elements and (last + 1) * item_size > storage.bytes:
            raise InspectionError("a tensor in it is larger than its record")
        self.tensor_bytes += elements * item_size  # repeated elements are no bytes of the file, but are of every copy
        if self.tensor_bytes > self.most_tensor_bytes:
            raise InspectionError("its tensors would take many times the memory of the file")
        if len(arguments) > 5 and _value(arguments[5], "collections OrderedDict").children:
            raise InspectionError("a tensor in it has hooks")
        return _Value("tensor")

    def parameter(self, name: str, arguments: list[Any]) -> _Value:
        tensor, _, hooks = arguments
        _value(tensor, "tensor")
        if _value(hooks, "collections OrderedDict").children:
            raise InspectionError("a parameter in it has hooks")
        return _Value("tensor")

    def sparse_tensor(self, name: str, arguments: list[Any]) -> _Value:
        _, parts = arguments
        for part in _value(parts, "tuple").children:
            if isinstance(part, _Value):
                _value(part, "tensor", "tuple", "torch Size")
        return _Value("tensor")

    def ordered_dict(self, name: str, arguments: list[Any]) -> _Value:
        if arguments:
            raise InspectionError("it fills a dictionary in a way that torch does not")
        return _Value(name)

    def copied(self, name: str, arguments: list[Any]) -> _Value:
        [content] = arguments
        if name == "builtins set":
            for item in _value(content, "list").children:
                _check_key(item)
        elif name == "torch Size":
            _numbers(content)
        else:
            _value(content, "dict")
        return _Value(name, [content])

    def small(self, name: str, arguments: list[Any]) -> _Value:
        if any(type(argument) not in (str, int, float) for argument in arguments):
            raise InspectionError(f"it calls {name.replace(' ', '.')} with something else than numbers and text")
        return _Value(name, list(arguments))

    def byte_array(self, name: str, arguments: list[Any]) -> _Value:
        for argument in arguments:  # a number would be a size
            _value(argument, "bytes")
        return _Value(name, arguments)

    def encoded(self, name: str, arguments: list[Any]) -> _Value:
        text, encoding = arguments
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise InspectionError("it holds bytes in a way that torch does not write")
        return _Value("bytes", [text])


def _value(value: Any, *kinds: str) -> _Value:
    if not isinstance(value, _Value) or value.kind not in kinds:
        raise InspectionError("its pickle is damaged: a value is of another kind than its use")
    return value


def _numbers(value: Any) -> list[int]:
    if isinstance(value, _Value) and value.kind == "torch Size":
        [value] = value.children
    numbers = _value(value, "tuple").children
    if any(type(number) is not int or number < 0 for number in numbers):
        raise InspectionError("a tensor in it has a shape that no tensor has")
    return numbers


def _items(value: Any) -> dict[Any, Any]:
    children = _value(value, "dict", "collections OrderedDict").children
    return dict(zip(children[::2], children[1::2], strict=True))


def _check_key(key: Any) -> None:
    """Of a dict or set: hashing nested tuples recurses without a limit."""
    parts = key.children if isinstance(key, _Value) and key.kind == "tuple" else [key]
    for part in parts:
        if isinstance(part, _Value | _Global) or (type(part) is int and abs(part) > _LARGEST_KEY):
            raise InspectionError("a dictionary in it has a key that is neither text nor a number")


def _check_extent(root: Any, most: int) -> None:
    """Refuse what goes too deep, holds itself, or is so much repeated that whoever goes through it never ends."""
    extents: dict[int, tuple[int, int]] = {}
    under_way: set[int] = set()
    pending = [root]
    while pending:
        value = pending[-1]
        if not isinstance(value, _Value) or id(value) in extents:
            pending.pop()
            continue
        if id(value) not in under_way:
            under_way.add(id(value))
            inner = [child for child in value.children if isinstance(child, _Value) and id(child) not in extents]
            if any(id(child) in under_way for child in inner):
                raise InspectionError("a value in it holds itself")
            if len(under_way) > _DEEPEST:
                raise InspectionError(_TOO_DEEP)
            pending += inner
            continue
        pending.pop()
        under_way.discard(id(value))
        depth, size = 1, 1
        for child in value.children:
            deep, large = extents.get(id(child), (0, 1 + (len(child) if isinstance(child, str) else 0)))
            depth, size = max(depth, deep + 1), size + large
        if depth > _DEEPEST:
            raise InspectionError(_TOO_DEEP)
        if size > most:
            raise InspectionError("its values are repeated so often that nobody could go through them")
        extents[id(value)] = depth, size


def _trusted_globals() -> set[str]:
    """What somebody has called safe; torch calls its distributed tensors so, which no checkpoint file here has."""
    trusted = set()
    for entry in torch.serialization.get_safe_globals():
        if isinstance(entry, tuple):
            module, _, name = entry[1].rpartition(".")
        else:
            module, name = entry.__module__, entry.__qualname__
        if module.partition(".")[0] != "torch":
            trusted.add(f"{module} {name}")
    return trusted


_SCALARS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_CONTAINERS = {"EMPTY_LIST": "list", "EMPTY_DICT": "dict", "EMPTY_TUPLE": "tuple"}
_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.protocol,
    "STOP": _Machine.stop,
    "MARK": _Machine.mark,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "TUPLE": _Machine.tuple_since_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "GLOBAL": _Machine.named,
    "BINPERSID": _Machine.storage,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.new_object,
    "BUILD": _Machine.build,
}
_CALLS: dict[str, Callable[[_Machine, str, list[Any]], _Value]] = {
    "torch._utils _rebuild_tensor": _Machine.tensor,
    "torch._utils _rebuild_tensor_v2": _Machine.tensor,
    "torch._utils _rebuild_tensor_v3": _Machine.tensor,
    "torch._utils _rebuild_parameter": _Machine.parameter,
    "torch._utils _rebuild_sparse_tensor": _Machine.sparse_tensor,
    "torch.serialization _get_layout": _Machine.small,
    "torch device": _Machine.small,
    "torch Size": _Machine.copied,
    "builtins set": _Machine.copied,
    "builtins complex": _Machine.small,
    "builtins bytearray": _Machine.byte_array,
    "_codecs encode": _Machine.encoded,
    "collections OrderedDict": _Machine.ordered_dict,
    "collections Counter": _Machine.copied,
}
