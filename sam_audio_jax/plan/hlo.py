"""A compiled program's text: its computations, their instructions in order, how often each runs.

The text is that of `compiled.as_text()`. Where its head says `is_scheduled=true` the order of the
instructions in each computation is the order in which the chip runs them.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8}
ENTRY = "ENTRY"  # the name under which the program's own computation is found

_SHAPE = re.compile(r"\b(pred|bf16|[fsu]\d+)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"(?:^|\s)([a-z][\w\-]*)\(")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_LOOP = re.compile(r"\bcondition=%?([\w.\-]+), body=%?([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Shape:
    """The shape of one array."""

    dtype: str
    sides: tuple[int, ...]

    @property
    def size(self) -> int:
        """In bytes."""
        width = BYTES.get(self.dtype) or int(self.dtype[1:]) // 8
        return width * math.prod(self.sides)


def shapes(text: str) -> list[Shape]:
    """The shapes in text such as `(bf16[8,128]{1,0}, f32[])`."""
    return [
        Shape(one[1], tuple(int(side) for side in one[2].split(",") if side))
        for one in _SHAPE.finditer(text)
    ]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction of a computation."""

    name: str
    result: tuple[Shape, ...]  # one, or those of a tuple
    opcode: str
    operands: tuple[str, ...]  # names
    attributes: str  # what follows the operands

    @property
    def called(self) -> list[str]:
        """Names of the computations that it runs, in the order of the text."""
        names = _CALLED.findall(self.attributes)
        branches = _BRANCHES.search(self.attributes)
        return names + (re.findall(r"[\w.\-]+", branches[1]) if branches else [])


Computations = Mapping[str, Sequence[Instruction]]


def computations(text: str) -> dict[str, list[Instruction]]:
    """The instructions of each computation by its name; the program's own is `ENTRY`."""
    bodies: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            current = bodies[ENTRY if head[1] else head[2]] = []
        elif (found := _instruction(line)) is not None:
            current.append(found)
    return bodies


def is_scheduled(text: str) -> bool:
    """Whether the order of the instructions is the order in which they run."""
    return "is_scheduled=true" in text.split("\n", 1)[0]


def _instruction(line: str) -> Instruction | None:
    """The instruction on a line, if there is one."""
    match = _INSTRUCTION.match(line)
    opcode = _OPCODE.search(match[2]) if match else None
    if match is None or opcode is None:
        return None
    inside, _, attributes = match[2][opcode.end() :].partition(")")
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    if opcode[1] == "constant":  # its number is no operand, but the trips of a loop
        attributes = f"({inside}){attributes}"
    result = tuple(shapes(match[2][: opcode.start()]))
    return Instruction(match[1], result, opcode[1], operands, attributes)


def trips(loop: Instruction, program: Computations) -> int:
    """How often the body of a `while` runs, which counts from 0 to a constant; 1 if it does not."""
    match = _LOOP.search(loop.attributes)
    condition = program.get(match[1], ()) if match else ()
    limits = [limit for one in condition if (limit := _constant(one)) is not None]
    if match is None or len(limits) != 1:
        return 1
    return -(-limits[0] // _step(condition, program.get(match[2], ())))


def _step(condition: Sequence[Instruction], repeated: Sequence[Instruction]) -> int:
    """By how much a loop's counter grows in its body: more than 1 in one that was unrolled."""
    compared = {name for one in condition if one.opcode == "compare" for name in one.operands}
    counters = [one for one in condition if one.name in compared and _index(one) is not None]
    if len(counters) != 1 or not repeated or repeated[-1].opcode != "tuple":
        return 1
    by_name = {one.name: one for one in repeated}
    update = by_name.get(repeated[-1].operands[_index(counters[0]) or 0])
    if update is None or update.opcode != "add":
        return 1
    steps = [_constant(by_name[name]) for name in update.operands if name in by_name]
    return next((step for step in steps if step), 1)


def _constant(one: Instruction) -> int | None:
    """The value of an integer constant; None for anything else."""
    match = re.match(r"\((\d+)\)", one.attributes)
    integer = one.opcode == "constant" and one.result in ((Shape("s32", ()),), (Shape("u32", ()),))
    return int(match[1]) if match and integer else None


def _index(one: Instruction) -> int | None:
    """Which element of a tuple a `get-tuple-element` takes; None for anything else."""
    match = re.search(r"\bindex=(\d+)", one.attributes)
    return int(match[1]) if match and one.opcode == "get-tuple-element" else None


def body(loop: Instruction) -> str:
    """The name of the computation that a `while` repeats."""
    match = _LOOP.search(loop.attributes)
    return match[2] if match else ""


def runs(program: Computations) -> dict[str, int]:
    """How often each computation runs in one run of the program."""
    total: dict[str, int] = collections.Counter()

    def walk(name: str, times: int) -> None:
        total[name] += times
        for one in program[name]:
            repeated = trips(one, program) if one.opcode == "while" else 1
            for called in one.called:
                if called in program:
                    looped = one.opcode == "while" and called == body(one)
                    walk(called, times * (repeated if looped else 1))

    walk(ENTRY, 1)
    return total
