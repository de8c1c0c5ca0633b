"""Speed of the parts on one machine, and what bfloat16 costs in accuracy; docs/numerics.md."""
