"""The schedule of a compiled program: how much of its collectives the products between them hide.

A chip runs the instructions of the text in their order. What counts as hidden, by the form that an
asynchronous collective has in the text:

* `...-start` and `...-done`: goes on while the products between the two are computed.
* in parts that are fused with products (`async-collective-start`, fusions of one `chain_id`,
  `async-collective-done`): goes on while the products of its own fusions are computed.

What is left of it at its done, and every synchronous collective, is exposed. Collectives along one
mesh axis wait for each other. Element-wise work hides nothing here.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

from sam_audio_jax.plan import hlo
from sam_audio_jax.plan.collectives import FIRST_PART, LAST_PART, Collective, collective_of
from sam_audio_jax.plan.compiled_products import first_results, products_of
from sam_audio_jax.plan.flops import Product

SAME = ("get-tuple-element", "bitcast", "copy", "tuple", "async-update")  # handles passed on


@dataclasses.dataclass(kw_only=True)
class Timeline:
    """What one run of a program takes, in seconds."""

    products: float = 0.0
    links: float = 0.0  # of all collectives
    exposed: float = 0.0  # of those, the time in which nothing else runs
    starts: int = 0  # asynchronous collectives that were started
    covered: int = 0  # of those, how many have products to hide them
    synchronous: int = 0  # collectives that nothing can hide
    operations: int = 0  # of all products

    @property
    def hidden(self) -> float:
        """Seconds of collectives behind products."""
        return self.links - self.exposed


def read(
    text: str,
    mesh: Mapping[str, int],
    *,
    seconds: Callable[[Product], float],
    rate: Callable[[tuple[str, ...]], float],
) -> Timeline:
    """Runs through the schedule in `compiled.as_text()`.

    Args:
      text: whose instructions are in the order in which they run.
      mesh: the sizes of the mesh axes, in order.
      seconds: of a product.
      rate: bytes a second that a chip sends along mesh axes.

    Raises `ValueError` where the text is not scheduled.
    """
    if not hlo.is_scheduled(text):
        raise ValueError("the text of the program is not scheduled")
    run = _Run(hlo.computations(text), mesh, seconds, rate)
    run.computation(hlo.ENTRY)
    return run.total


@dataclasses.dataclass
class _Pending:
    """An asynchronous collective between its start and its done."""

    axes: tuple[str, ...]
    left: float  # seconds that it still needs, of one in parts
    end: float = 0.0  # when it is done, of one that goes on by itself
    before: float = 0.0  # products computed before its start
    covered: bool = False


class _Run:
    """One pass over a program, with a clock for the chip and one for each mesh axis."""

    def __init__(
        self,
        program: hlo.Computations,
        mesh: Mapping[str, int],
        seconds: Callable[[Product], float],
        rate: Callable[[tuple[str, ...]], float],
    ):
        self.program = program
        self.mesh = mesh
        self.seconds = seconds
        self.rate = rate
        self.total = Timeline()
        self.now = 0.0
        self.free: dict[str, float] = collections.defaultdict(float)  # when an axis is free again
        self.chains: dict[str, _Pending] = {}
        self.steps = functools.cache(self._steps)  # a loop's body is read once

    def computation(self, name: str) -> None:
        """Runs the instructions of a computation."""
        started: dict[str, _Pending] = {}
        for one, collective, products in self.steps(name):
            source = started.get(one.operands[0]) if one.operands else None
            if source and one.opcode in SAME:
                started[one.name] = source
            elif source and one.opcode.endswith("-done"):
                self.wait(source)
            elif collective and collective.chain:
                self.part(one, collective, products)
            elif collective and one.opcode.endswith("-start"):
                started[one.name] = self.start(collective)
            elif collective:
                self.total.synchronous += 1
                self.expose(self.begin(collective.axes, self.duration(collective)))
            elif one.opcode == "while":
                for _ in range(hlo.trips(one, self.program)):
                    self.computation(hlo.body(one))
            elif one.opcode in ("call", "conditional"):
                for called in one.called:
                    self.computation(called)
            else:
                self.compute(products)

    def start(self, one: Collective) -> _Pending:
        """Starts a collective that goes on by itself."""
        self.total.starts += 1
        end = self.begin(one.axes, self.duration(one))
        return _Pending(one.axes, 0.0, end, self.total.products)

    def wait(self, one: _Pending) -> None:
        """Waits for a collective that goes on by itself."""
        self.total.covered += self.total.products > one.before
        self.expose(one.end)

    def part(
        self, one: hlo.Instruction, collective: Collective, products: Sequence[Product]
    ) -> None:
        """Runs one part of a collective together with the products that it is fused with."""
        if one.name.startswith(FIRST_PART):
            self.total.starts += 1
            self.chains[collective.chain] = _Pending(collective.axes, self.duration(collective))
        pending = self.chains[collective.chain]
        if one.name.startswith(LAST_PART):
            self.total.covered += pending.covered
            self.expose(self.begin(pending.axes, pending.left))
            return
        end = self.now + sum(self.seconds(product) for product in products)
        begin = max(self.now, *(self.free[axis] for axis in pending.axes))
        done = min(pending.left, max(end - begin, 0.0))
        if done:
            self.begin(pending.axes, done)
        pending.left -= done
        pending.covered |= done > 0
        self.compute(products)

    def compute(self, products: Sequence[Product]) -> None:
        """Runs products, one after the other."""
        for product in products:
            self.total.operations += product.flops
            self.total.products += self.seconds(product)
            self.now += self.seconds(product)

    def duration(self, one: Collective) -> float:
        """Counts a collective; returns its seconds."""
        seconds = one.sent / self.rate(one.axes)
        self.total.links += seconds
        return seconds

    def begin(self, axes: tuple[str, ...], seconds: float) -> float:
        """Uses mesh axes as soon as they are free; returns until when."""
        end = max(self.now, *(self.free[axis] for axis in axes)) + seconds
        self.free.update(dict.fromkeys(axes, end))
        return end

    def expose(self, end: float) -> None:
        """Waits until then."""
        self.total.exposed += max(end - self.now, 0.0)
        self.now = max(end, self.now)

    def _steps(
        self, name: str
    ) -> list[tuple[hlo.Instruction, Collective | None, Sequence[Product]]]:
        """The instructions of a computation with the collective and the products of each."""
        instructions = self.program[name]
        shapes = first_results(instructions)
        return [
            (one, self._collective(one, name), products_of(one, shapes, self.program))
            for one in instructions
        ]

    def _collective(self, one: hlo.Instruction, inside: str) -> Collective | None:
        """The collective of an instruction, or inside its fusion or asynchronous computation."""
        found = collective_of(one, self.mesh, inside=inside, times=1)
        if found is not None or one.opcode not in ("fusion", "async-start"):
            return found
        inner = (
            self._collective(part, called)
            for called in one.called
            for part in self.program.get(called, ())
        )
        return next((part for part in inner if part is not None), None)
