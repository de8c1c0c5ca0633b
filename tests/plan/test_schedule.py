"""Overlap of collectives and products, read from schedules that were written by hand."""

import dataclasses

import pytest

from sam_audio_jax.plan.collectives import collectives
from sam_audio_jax.plan.schedule import Timeline, read

MESH = {"data": 2, "fsdp": 4, "tensor": 1, "sequence": 1}
FSDP = "replica_groups={{0,1,2,3},{4,5,6,7}}"
DATA = "replica_groups={{0,4},{1,5},{2,6},{3,7}}"
# Every product below has 2 * 8 * 16 * 4 = 1024 operations, every gather sends 96 bytes (3 of 4
# parts of 128). A product takes 10 s, a gather along fsdp 24 s, along data 16 s (1 of 2 parts).
HEAD = "HloModule jit_step, is_scheduled=true\n\nENTRY %main (a: bf16[8,16]) -> bf16[8,4] {\n"
SECONDS = 10.0
RATES = {("fsdp",): 4.0, ("data",): 4.0}


def product(name: str) -> str:
    return f"  %{name} = bf16[8,4] convolution(%a, %b), dim_labels=bf_io->bf\n"


def start(name: str, groups: str = FSDP) -> str:
    return f"  %{name} = (bf16[16], bf16[8,8]{{1,0}}) all-gather-start(%a), {groups}\n"


def done(name: str, of: str) -> str:
    return f"  %{name} = bf16[8,8]{{1,0}} all-gather-done(%{of})\n"


def scheduled(*lines: str, head: str = HEAD) -> Timeline:
    operands = "  %a = bf16[8,16] parameter(0)\n  %b = bf16[16,4] parameter(1)\n"
    return read(
        head + operands + "".join(lines) + "}\n",
        MESH,
        seconds=lambda one: SECONDS * one.flops / 1024,
        rate=RATES.__getitem__,
    )


def check(schedule: Timeline, **expected) -> None:
    assert {name: getattr(schedule, name) for name in expected} == expected


def test_products_between_start_and_done_hide_a_collective():
    one = scheduled(start("g"), product("x"), product("y"), done("d", "g"), product("z"))
    check(one, links=24, exposed=4, hidden=20, products=30, starts=1, covered=1, synchronous=0)
    assert one.operations == 3 * 1024


def test_a_start_that_is_followed_by_its_done_is_exposed_whole():
    one = scheduled(product("x"), start("g"), done("d", "g"), product("y"))
    check(one, links=24, exposed=24, products=20, starts=1, covered=0)


def test_enough_products_hide_all():
    one = scheduled(start("g"), *(product(f"x{i}") for i in range(3)), done("d", "g"))
    check(one, links=24, exposed=0, products=30, covered=1)


def test_a_synchronous_collective_is_exposed_whole():
    gather = f"  %g = bf16[8,8]{{1,0}} all-gather(%a), {FSDP}, dimensions={{0}}\n"
    check(scheduled(product("x"), gather, product("y")), links=24, exposed=24, synchronous=1)


def test_two_collectives_along_one_axis_wait_for_each_other():
    # The second begins when the first ends, at 24 s, and ends at 48 s; the products end at 20 s.
    lines = (start("g"), start("h"), product("x"), product("y"), done("d", "g"), done("e", "h"))
    check(scheduled(*lines), links=48, exposed=28, covered=2)


def test_collectives_along_two_axes_run_at_once():
    # Along fsdp until 24 s, along data until 16 s; the products end at 20 s.
    lines = (start("g"), start("h", DATA), product("x"), product("y"), done("d", "g"))
    check(scheduled(*lines, done("e", "h")), links=40, exposed=4, covered=2)


def test_what_is_hidden_in_a_loop_counts_for_each_trip():
    body = (
        "%body (p: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {\n"
        "  %p = (s32[], bf16[8,16]) parameter(0)\n"
        "  %a = bf16[8,16] get-tuple-element(%p), index=1\n  %b = bf16[16,4] parameter(1)\n"
        + start("g")
        + product("x")
        + done("d", "g")
        + "  ROOT %t = (s32[], bf16[8,16]) tuple(%i, %a)\n}\n\n"
        "%cond (p: (s32[], bf16[8,16])) -> pred[] {\n  %n = s32[] constant(5)\n"
        "  ROOT %lt = pred[] compare(%i, %n), direction=LT\n}\n\n"
    )
    module, entry = HEAD.split("\n\n")
    loop = "  %w = (s32[], bf16[8,16]) while(%t), condition=%cond, body=%body\n"
    one = scheduled(loop, head=f"{module}\n\n{body}{entry}")
    check(one, links=5 * 24, exposed=5 * 14, products=50, starts=5, covered=5)


def test_the_generic_form_of_asynchronous_collectives():
    wrapped = (
        "%wrapped (p: bf16[8,8]) -> bf16[2,8] {\n  %p = bf16[8,8] parameter(0)\n"
        f"  ROOT %r = bf16[2,8] reduce-scatter(%p), {FSDP}, dimensions={{0}}, to_apply=%add\n}}\n\n"
    )
    module, entry = HEAD.split("\n\n")
    lines = (
        "  %s = ((bf16[8,8]), bf16[2,8], s32[]) async-start(%a), calls=%wrapped\n",
        product("x"),
        "  %u = ((bf16[8,8]), bf16[2,8], s32[]) async-update(%s), calls=%wrapped\n",
        "  %d = bf16[2,8] async-done(%u), calls=%wrapped\n",
    )
    one = scheduled(*lines, head=f"{module}\n\n{wrapped}{entry}")
    check(one, links=24, exposed=14, starts=1, covered=1, synchronous=0)


def test_text_without_a_schedule_is_refused():
    with pytest.raises(ValueError, match="not scheduled"):
        scheduled(product("x"), head=HEAD.replace(", is_scheduled=true", ""))


def test_hidden_and_exposed_are_all_of_the_collectives():
    one = scheduled(start("g"), product("x"), done("d", "g"))
    assert one.hidden + one.exposed == one.links
    assert dataclasses.asdict(one)["exposed"] == 14


def part(name: str, inside: str) -> str:
    return f"  %{name} = (bf16[8,8]) fusion(%a, %b), kind=kCustom, calls=%{inside}\n"


def test_a_collective_in_parts_goes_on_with_the_products_of_its_fusions_only():
    gather = (
        f'  %g = bf16[8,8]{{1,0}} all-gather(%q), {FSDP}, frontend_attributes={{chain_id="3"}}\n'
    )
    bare = f"(q: bf16[2,8]) -> (bf16[8,8]) {{\n  %q = bf16[2,8] parameter(0)\n{gather}}}\n\n"
    fused = (
        "%async_collective_fusion.1 (a: bf16[8,16], b: bf16[16,4], q: bf16[2,8]) -> (bf16[8,8]) {\n"
        "  %a = bf16[8,16] parameter(0)\n  %b = bf16[16,4] parameter(1)\n"
        f"  %q = bf16[2,8] parameter(2)\n{product('x')}{gather}}}\n\n"
    )
    module, entry = HEAD.split("\n\n")
    head = f"{module}\n\n%first {bare}%last {bare}{fused}{entry}"
    begin, step, end = (
        part("async-collective-start.3", "first"),
        part("fusion.1", "async_collective_fusion.1"),
        part("async-collective-done.3", "last"),
    )
    one = scheduled(begin, step, product("y"), end, product("z"), head=head)
    check(one, links=24, exposed=14, products=30, starts=1, covered=1, synchronous=0)
    twice = scheduled(begin, step, step, step, end, head=head)
    check(twice, links=24, exposed=0, products=30, covered=1)
    check(scheduled(begin, product("x"), end, head=head), links=24, exposed=24, covered=0)
    # Its bytes are counted once, not once for each part.
    text = f"{head}{begin}{step}{step}{end}}}\n"
    (gathered,) = collectives(text, MESH)
    assert gathered.sent == 96
