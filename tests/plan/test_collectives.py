"""Collectives read from text in XLA's notations, with loops."""

import pytest

from sam_audio_jax.plan.collectives import collectives

MESH = {"data": 2, "fsdp": 4, "tensor": 1, "sequence": 1}

PROGRAM = """HloModule jit_step

%body (p: (s32[], bf16[2,8])) -> (s32[], bf16[2,8]) {
  %p = (s32[], bf16[2,8]) parameter(0)
  %gathered = bf16[8,8]{1,0} all-gather(%x), GROUPS, dimensions={0}, metadata={op_name="while/dot"}
  %scattered = bf16[2,8]{1,0} fusion(%y), kind=kCustom, calls=%all-reduce-scatter.1
}

%cond (p: (s32[], bf16[2,8])) -> pred[] {
  %n = s32[]{:T(128)} constant(22)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%all-reduce-scatter.1 (input: bf16[8,8]) -> bf16[2,8] {
  %sum = bf16[8,8]{1,0} all-reduce(%input), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %w = (s32[], bf16[2,8]) while(%t), condition=%cond, body=%body
  %loss = (f32[], f32[10]{0}) all-reduce(%l, %m), replica_groups=[1,8]<=[8], to_apply=%add
  %alone = f32[4] all-reduce(%a), replica_groups=[8,1]<=[8], to_apply=%add
  %moved = bf16[4]{0} collective-permute(%b), source_target_pairs={{0,4},{4,0},{1,5},{5,1}}
}
"""
NOTATIONS = {
    "listed": "replica_groups={{0,1,2,3},{4,5,6,7}}",
    "iota": "replica_groups=[2,4]<=[8]",
    "mesh": "replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}",
    "turned mesh": "replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}",
}


@pytest.mark.parametrize("groups", NOTATIONS.values(), ids=NOTATIONS.keys())
def test_every_notation_of_groups(groups):
    read = collectives(PROGRAM.replace("GROUPS", groups), MESH)
    gather = next(one for one in read if one.kind == "all-gather")
    assert (gather.axes, gather.ways, gather.times) == (("fsdp",), 4, 22)
    assert gather.sent == 22 * 128 * 3 / 4
    assert gather.source.endswith("dot")


def test_transposed_iota_is_along_the_other_axis():
    text = PROGRAM.replace("GROUPS", "replica_groups=[4,2]<=[2,4]T(1,0)")
    gather = next(one for one in collectives(text, MESH) if one.kind == "all-gather")
    assert (gather.axes, gather.ways) == (("data",), 2)


def test_kinds_loops_and_sizes():
    read = {
        one.kind: one for one in collectives(PROGRAM.replace("GROUPS", NOTATIONS["iota"]), MESH)
    }
    scatter = read["reduce-scatter"]
    assert (scatter.axes, scatter.times, scatter.sent) == (("fsdp",), 22, 22 * 128 * 3 / 4)
    total = read["all-reduce"]  # the one among all; the one of single devices is left out
    assert (total.axes, total.result, total.sent) == (("data", "fsdp"), 44, 2 * 44 * 7 / 8)
    assert (read["collective-permute"].axes, read["collective-permute"].sent) == (("data",), 8)
