"""Every number of every config is refused where it means nothing; read off the classes."""

import dataclasses
import importlib
import math
import pathlib
import re
import typing
from typing import Annotated, Any

import pytest

from sam_audio_jax import bounds, config
from sam_audio_jax.errors import UserError

PACKAGE = pathlib.Path(bounds.__file__).parent
DECLARED = re.compile(r"^class (\w+Config|\w+Options)\b", re.M)


def config_classes() -> list[type]:
    """Every class of the package whose name says that it is a config."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names = DECLARED.findall(path.read_text())
        if names and "configs" not in parts:
            module = importlib.import_module(".".join(parts))
            found += [getattr(module, name) for name in names]
    return found


CLASSES = config_classes()
REQUIRED = {str: "name", tuple[str, ...]: ("name",)}  # type -> value of a field without a default


def numeric(hint: Any) -> bool:
    return typing.get_origin(hint) is Annotated or hint in (int, float)


def fields(cls: type) -> list[tuple[str, Any]]:
    return list(bounds.hints(cls).items())


def wrong_values(hint: Any) -> list[Any]:
    """Values that a numeric type must refuse."""
    base, *ranges = typing.get_args(hint)
    wrong = [math.nan, math.inf, -math.inf, "6", None, True, [1], 10**400]
    wrong += [6.5] if base is int else []
    for bound in ranges:
        step = 1 if base is int else 1e-6
        wrong += [bound.low - step] if math.isfinite(bound.low) else []
        wrong += [bound.high + step * max(1, bound.high)] if math.isfinite(bound.high) else []
        wrong += [
            end for end, ok in zip((bound.low, bound.high), bound.closed, strict=True) if not ok
        ]
    return [base(x) if base is int and isinstance(x, int) and x is not True else x for x in wrong]


def without_cross_checks(cls: type, values: dict[str, Any]) -> Any:
    """An instance of a config whose other fields need not fit each other."""
    instance = object.__new__(cls)
    hints = bounds.hints(cls)
    for field in dataclasses.fields(cls):
        default, factory = field.default, field.default_factory
        if factory is not dataclasses.MISSING:
            default = factory()
        elif default is dataclasses.MISSING:
            default = REQUIRED[hints[field.name]]
        object.__setattr__(instance, field.name, values.get(field.name, default))
    return instance


def test_all_configs_are_found():
    assert {"TrainConfig", "CodecConfig", "VisionConfig", "MeshConfig", "SeparateOptions"} <= {
        cls.__name__ for cls in CLASSES
    }
    assert len(CLASSES) >= 25


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_number_has_a_range_and_refuses_what_means_nothing(cls):
    assert issubclass(cls, bounds.Checked)
    default = without_cross_checks(cls, {})
    bounds.Checked.__post_init__(default)
    for name, hint in fields(cls):
        inner = typing.get_args(hint)
        if numeric(hint):
            assert typing.get_origin(hint) is Annotated, f"{cls.__name__}.{name} has no range"
            candidates = wrong_values(hint)
        elif typing.get_origin(hint) is tuple and all(map(numeric, inner[:1])):
            candidates = [(value,) * 2 for value in wrong_values(inner[0])]
        else:
            continue
        for value in candidates:
            with pytest.raises(UserError, match=re.escape(name)) as caught:
                cls.__post_init__(without_cross_checks(cls, {name: value}))
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kettle(bounds.Checked, where="kitchen"):
    litres: bounds.Positive = 1.5
    cups: bounds.Size = 6
    shape: typing.Literal["round", "square"] = "round"
    marks: tuple[bounds.Share, ...] = (0.5,)
    handle: str = "wood"
    lid: bool = True


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"litres": 0}, "kitchen.litres=0 must be a finite number above 0"),
        ({"cups": 6.0}, "kitchen.cups=6.0 must be a whole number from 1 to 1000000"),
        ({"shape": "flat"}, "kitchen.shape='flat' must be one of round, square"),
        ({"marks": (0.5, 2)}, "kitchen.marks=(0.5, 2) must be a list, each a finite number from 0"),
        ({"handle": 3}, "kitchen.handle=3 must be a text"),
        ({"lid": 1}, "kitchen.lid=1 must be True or False"),
    ],
)
def test_the_message_names_field_value_and_what_is_allowed(values, message):
    assert Kettle(litres=2).cups == 6
    with pytest.raises(UserError, match=re.escape(message)):
        Kettle(**values)
    with pytest.raises(UserError):
        config.from_dict(Kettle, values)


@pytest.mark.parametrize(
    "flags",
    [
        ["--data.mix.second-share", "7"],
        ["--data.prompts.text-dropout", "nan"],
        ["--optim.weight-decay", "-5"],
        ["--flow.time-std", "nan"],
        ["--max-minutes", "nan"],
        ["--checkpoint.every-minutes", "-1"],
        ["--data.workers", "100000"],
        ["--data.mix.snr-db", "nan", "3"],
        ["--data.mix.seconds", "1e7"],
        ["--codec.sample-rate", "0"],
        ["--separator.dit.depth", "1000000000"],
        ["--seed", "-1"],
        ["--data.seed", "-1"],
    ],
    ids=" ".join,
)
def test_flags_that_mean_nothing_are_one_line(flags):
    with pytest.raises(UserError) as caught:
        config.from_cli(["tiny", *flags])
    name = flags[0].removeprefix("--").replace("-", "_")
    assert name.split(".")[-1] in str(caught.value)
    assert "must be" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CONFIG = RunConfig(\n", "experiment.py line 1: SyntaxError"),
        ("import math\nCONFIG = nothing\n", "experiment.py line 2: NameError"),
        ("\n\n1 / 0\n", "experiment.py line 3: ZeroDivisionError"),
        ("import no_such_module_at_all\n", "line 1: ModuleNotFoundError"),
        ("import beside\n", "beside.py line 2: TypeError"),
    ],
)
def test_a_config_file_that_cannot_be_run_is_one_line(tmp_path, text, message):
    (tmp_path / "beside.py").write_text("\n1 + 'a'\n")
    (tmp_path / "experiment.py").write_text(text)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        config.from_cli([str(tmp_path / "experiment.py")])
    assert "\n" not in str(caught.value)
