"""Programs read from their text: instructions, loops, products."""

import pytest

from sam_audio_jax.plan import hlo
from sam_audio_jax.plan.compiled_products import first_results, products_of

# A loop that was unrolled twice, as the TPU's compiler writes a product in parts round a ring.
UNROLLED = """HloModule jit_step, is_scheduled=true

%body (p: (bf16[8,16], u32[])) -> (bf16[8,16], u32[]) {
  %two = u32[]{:T(128)} constant(2)
  %p = (bf16[8,16]{1,0:T(8,128)(2,1)}, u32[]{:T(128)}) parameter(0)
  %x = bf16[8,16]{1,0:T(8,128)(2,1)} get-tuple-element(%p), index=0
  %i = u32[]{:T(128)} get-tuple-element(%p), index=1
  %next = u32[]{:T(128)} add(%i, %two)
  ROOT %t = (bf16[8,16]{1,0}, u32[]) tuple(%x, %next)
}

%cond (p: (bf16[8,16], u32[])) -> pred[] {
  %p.1 = (bf16[8,16]{1,0}, u32[]) parameter(0)
  %limit = u32[] constant(7)
  %i.1 = u32[] get-tuple-element(%p.1), index=1
  ROOT %lt = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (a: bf16[8,16]) -> bf16[8,16] {
  %a = bf16[8,16]{1,0} parameter(0)
  %zero = u32[] constant(0)
  %start = (bf16[8,16]{1,0}, u32[]) tuple(%a, %zero)
  %w = (bf16[8,16]{1,0}, u32[]) while(%start), condition=%cond, body=%body
  ROOT %out = bf16[8,16]{1,0} get-tuple-element(%w), index=0
}
"""


@pytest.mark.parametrize(
    ("step", "runs"), [("constant(2)", 4), ("constant(1)", 7), ("constant(7)", 1)]
)
def test_a_loop_ends_when_its_counter_reaches_the_limit(step, runs):
    program = hlo.computations(UNROLLED.replace("constant(2)", step))
    assert hlo.runs(program) == {"ENTRY": 1, "body": runs, "cond": 1}


def test_instructions_are_read_in_order_with_their_shapes():
    program = hlo.computations(UNROLLED)
    assert [one.opcode for one in program["ENTRY"]] == [
        *("parameter", "constant", "tuple", "while", "get-tuple-element"),
    ]
    both = program["body"][1]
    assert (both.name, both.operands) == ("p", ())
    assert both.result == (hlo.Shape("bf16", (8, 16)), hlo.Shape("u32", ()))
    assert [shape.size for shape in both.result] == [8 * 16 * 2, 4]
    assert program["body"][-1].operands == ("x", "next")


@pytest.mark.parametrize(
    ("left", "right", "attributes", "result", "operations"),
    [
        # a product with a weight
        ("bf16[32,16]", "bf16[16,8]", "dim_labels=bf_io->bf", "f32[32,8]", 2 * 32 * 16 * 8),
        # over frames, with a kernel of one tap
        (
            *("bf16[4,50,16]", "bf16[1,16,8]"),
            *("window={size=1}, dim_labels=b0f_0io->b0f", "bf16[4,50,8]", 2 * 4 * 50 * 16 * 8),
        ),
        # three taps, zeros around: the two ends have one tap less
        (
            *("f32[2,10,5]", "f32[3,5,7]"),
            "window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f",
            *("f32[2,10,7]", 2 * 2 * (3 * 10 - 2) * 5 * 7),
        ),
        # a weight for each of 12 heads: every window but for one position lies in the padding
        (
            *("bf16[6,1,16]", "bf16[12,16,8]"),
            "window={size=12 pad=11_11 rhs_reversal=1}, dim_labels=b0f_0io->b0f",
            *("bf16[6,12,8]", 2 * 6 * 12 * 16 * 8),
        ),
        # the same on heads of both sides, by holes between them
        (
            *("bf16[6,12,16]", "bf16[12,16,8]"),
            "window={size=12 stride=11 lhs_dilate=12}, dim_labels=b0f_0io->b0f",
            *("bf16[6,12,8]", 2 * 6 * 12 * 16 * 8),
        ),
    ],
)
def test_operations_of_convolutions(left, right, attributes, result, operations):
    text = f"""HloModule m, is_scheduled=true

%fused (x: {left}, w: {right}) -> {result} {{
  %x = {left} parameter(0)
  %w = {right} parameter(1)
  ROOT %y = {result} convolution(%x, %w), {attributes}
}}

ENTRY %main (a: {left}, b: {right}) -> {result} {{
  %a = {left} parameter(0)
  %b = {right} parameter(1)
  ROOT %f = {result} fusion(%a, %b), kind=kOutput, calls=%fused
}}
"""
    program = hlo.computations(text)
    entry = program["ENTRY"]
    (product,) = products_of(entry[-1], first_results(entry), program)
    assert product.flops == operations
    assert product.moved == sum(shape.size for shape in hlo.shapes(f"{left} {right} {result}"))


def test_attention_kernels_are_known_by_their_names():
    text = """HloModule m, is_scheduled=true

ENTRY %main (q: bf16[4,12,768,128]) -> bf16[4,12,768,128] {
  %mask = s8[1,2,2] parameter(0)
  %q = bf16[4,12,768,128]{3,2,1,0} parameter(1)
  %splash_mha_dkv_no_residuals.1 = (f32[4,384,128]{2,1,0}, bf16[4,12,768,128]{3,2,1,0}) \
custom-call(%mask, %q, %q), custom_call_target="tpu_custom_call", frontend_attributes={
"xprof_metadata":"{}"
}, backend_config={}
}
"""
    program = hlo.computations(text)
    entry = program["ENTRY"]
    (product,) = products_of(entry[-1], first_results(entry), program)
    assert product.flops == 4 * 2 * 4 * 12 * 768**2 * 128
