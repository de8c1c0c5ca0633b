"""The scorers that `sam-audio bench scorers` measures, as PyTorch has them, to compare with.

CLAP is transformers' `ClapModel` with its feature extractor, Audiobox Aesthetics the authors'
package, ImageBind the authors' repository, Cnn14 the package `panns-inference`. The judge's own
package cannot be installed without the released weights' licence; transformers has both of its
networks, PE-AV and ModernBERT, which are joined here as docs/scoring.md, "Judge", says.

All of them get the weights that ours gets (`weights.draw`), one array at a time.
"""

import collections
import dataclasses
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from flax import nnx
from torch import nn  # pyright: ignore[reportMissingImports]

from sam_audio_jax.bench.scorer_parts import Original, ScorerForward
from sam_audio_jax.bench.weights import draw
from sam_audio_jax.convert.aesthetics import aesthetics_rows
from sam_audio_jax.convert.clap import TRANSFORMERS, clap_rows
from sam_audio_jax.convert.cnn14 import cnn14_rows
from sam_audio_jax.convert.imagebind import imagebind_rows
from sam_audio_jax.convert.judge import LINEARS, WITHOUT_BIAS
from sam_audio_jax.convert.names import CONV, LINEAR, Row, TensorLayout
from sam_audio_jax.convert.pe_a_frame import wave_rows
from sam_audio_jax.convert.peav import modernbert_rows, peav_rows
from sam_audio_jax.encoders.peav import PeavConfig
from sam_audio_jax.scorers.imagebind import ImageBindConfig
from sam_audio_jax.scorers.judge import NORM_EPS, JudgeConfig

Run = Callable[[], torch.Tensor]


def call(forward: ScorerForward) -> Run:
    """Returns the scorer in PyTorch, with its weights and inputs, on as many cores."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network: Any = nnx.eval_shape(forward.make)
    inputs = [torch.from_numpy(np.array(array)) for array in forward.inputs()]
    rows, module, program = BUILDERS[forward.original](network.config)
    fill(module.eval(), rows, draw(forward.make))
    run = torch.inference_mode()(program)
    return lambda: run(module, *inputs)


def fill(module: nn.Module, rows: Sequence[Row], leaves: Iterable[tuple[Any, np.ndarray]]) -> None:
    """Copies our weights into a module, by the reference's names, as the leaves come.

    Raises `ValueError` where a weight of either side has no partner.
    """
    theirs = module.state_dict()
    wanted: dict[str, list[Row]] = collections.defaultdict(list)
    for row in rows:
        wanted[row.ours].append(row)
    pieces = collections.Counter(name for row in rows for name in row.names(0))
    filled: collections.Counter[str] = collections.Counter()
    places = {id(row): _place(row, rows) for row in rows}
    for ours, array in _plain(leaves):
        if ours not in wanted:
            raise ValueError(f"{ours} has no name in PyTorch")
        for row in wanted[ours]:
            place = places[id(row)]
            for layer, name in enumerate(row.names(0)):
                piece = row.layout.to_theirs(array[layer] if row.stacked else array)
                tensor = theirs[name]
                size = len(tensor) // pieces[name] if pieces[name] > 1 else None
                part = tensor if size is None else tensor[place * size : (place + 1) * size]
                part.copy_(torch.from_numpy(np.array(piece, order="C")))
                filled[name] += 1
    trained = [name for name, one in module.named_parameters() if one.requires_grad]
    unfilled = [name for name in trained if not filled[name]]
    if unfilled:
        raise ValueError(f"{unfilled[0]} of PyTorch's module has no weight")


def _place(row: Row, rows: Sequence[Row]) -> int:
    """Which piece of its tensor a row is."""
    return [other.ours for other in rows if other.theirs == row.theirs].index(row.ours)


def _plain(leaves: Iterable[tuple[Any, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    """Dotted names and arrays; the weight norm of codec encoders becomes a plain kernel."""
    directions: dict[str, np.ndarray] = {}
    for path, array in leaves:
        name = ".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)
        owner, _, leaf = name.rpartition(".")
        if not owner.startswith("wave_encoder.") or leaf not in ("direction", "scale"):
            yield name, array
        elif leaf == "direction":
            directions[owner] = array
        else:
            direction = directions.pop(owner)
            norm = np.linalg.norm(direction, axis=(0, 1), keepdims=True)
            yield f"{owner}.kernel", direction * (array / norm)


Built = tuple[Sequence[Row], nn.Module, Callable[..., torch.Tensor]]


def _part_of_package(package: str, name: str) -> Any:
    """Imports `package.name` alone; a whole package may read videos or download labels."""
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        whole = types.ModuleType(package)
        whole.__path__ = list(spec.submodule_search_locations or ()) if spec else []
        sys.modules[package] = whole
    return importlib.import_module(f"{package}.{name}")


def _clap(config: Any) -> Built:
    import transformers

    settings: Any = transformers.ClapConfig()
    settings.text_config.layer_norm_eps = config.text.eps
    extractor = transformers.ClapFeatureExtractor(
        truncation="rand_trunc", padding="repeatpad", feature_size=config.audio.mels
    )

    def run(module: Any, wave: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        features: Any = extractor(
            list(wave.numpy()), sampling_rate=config.sample_rate, return_tensors="pt"
        )
        sounds = module.get_audio_features(features["input_features"].float())
        texts = module.get_text_features(ids.long(), mask)
        return torch.stack([sounds.pooler_output, texts.pooler_output])

    module = transformers.ClapModel(settings)
    del module.logit_scale_a, module.logit_scale_t  # of the loss
    return clap_rows(config, TRANSFORMERS), module, run


def _aesthetics(config: Any) -> Built:
    package = _part_of_package("audiobox_aesthetics", "model.aes")
    module = package.AesMultiOutput(proj_num_layer=config.head_layers, proj_ln=True)
    del module.wavlm_model.mask_emb  # of its own pre-training

    def run(module: Any, wave: torch.Tensor) -> torch.Tensor:
        scores = module({"wav": wave[:, None]})
        return torch.stack([scores[axis] for axis in package.AXES_NAME], dim=-1)

    layers = range(config.wavlm.depth)  # its rows leave the number to their table
    rows = [dataclasses.replace(row, layers=layers) for row in aesthetics_rows(config)]
    return rows, module, run


def _imagebind(config: ImageBindConfig, modality: str) -> Built:
    package = _part_of_package("imagebind", "models.imagebind_model")
    vision, audio = config.vision, config.audio
    module = package.ImageBindModel(
        vision_embed_dim=vision.width,
        vision_num_blocks=vision.depth,
        vision_num_heads=vision.heads,
        audio_num_blocks=audio.depth,
        out_embed_dim=config.output,
        **{f"{other}_num_blocks": 1 for other in ("text", "depth", "thermal", "imu")},
    )
    for part in ("preprocessors", "trunks", "heads", "postprocessors"):
        towers = getattr(module, f"modality_{part}")
        for other in set(towers) - {"vision", "audio"}:
            del towers[other]

    def run(module: Any, inputs: torch.Tensor) -> torch.Tensor:
        # Spectra of one channel, or [crops, 3, frames, y, x].
        inputs = inputs[:, None] if modality == "audio" else inputs.permute(0, 4, 1, 2, 3)
        # A gain of all vectors of sound is no part of the score.
        return F.normalize(_one_tower(module, modality, inputs), dim=-1)

    return imagebind_rows(config), module, run


def _one_tower(module: Any, modality: str, inputs: torch.Tensor) -> torch.Tensor:
    """The model's `forward` without the mean over crops."""
    prepared = module.modality_preprocessors[modality](**{modality: inputs})
    hidden = module.modality_trunks[modality](**prepared["trunk"])
    return module.modality_heads[modality](hidden, **prepared["head"])


def _cnn14(config: Any) -> Built:
    package = _part_of_package("panns_inference", "models")
    module = package.Cnn14(
        sample_rate=config.sample_rate,
        window_size=config.window,
        hop_size=config.hop,
        mel_bins=config.mels,
        fmin=config.low_hz,
        fmax=config.high_hz,
        classes_num=config.classes,
    )
    for extractor in (module.spectrogram_extractor, module.logmel_extractor):
        for parameter in list(extractor.parameters()):
            parameter.requires_grad_(False)  # constants, which `fill` leaves

    def run(module: Any, wave: torch.Tensor) -> torch.Tensor:
        return module(wave)["embedding"]

    return cnn14_rows(config), module, run


class TorchJudge(nn.Module):
    """The judge of transformers' PE-AV and ModernBERT; docs/scoring.md, "Judge"."""

    def __init__(self, config: JudgeConfig):
        import transformers

        super().__init__()
        self.audio = transformers.PeAudioEncoder(_peav_settings(config.audio, config))
        self.scoring = transformers.PeAudioEncoder(_peav_settings(config.scoring, config))
        self.scoring.embedder = _Embedded()
        text = config.text
        settings = transformers.ModernBertConfig(
            vocab_size=text.vocab_size,
            hidden_size=text.width,
            num_hidden_layers=text.depth,
            num_attention_heads=text.heads,
            intermediate_size=text.mlp,
            local_attention=text.window,
            layer_types=[
                "sliding_attention" if layer % text.global_every else "full_attention"
                for layer in range(text.depth)
            ],
            norm_eps=text.eps,
        )
        self.text = transformers.ModernBertModel(settings)
        self.text.final_norm = nn.Identity()  # the judge reads the states before it
        size, width = config.bottleneck, config.audio.width
        self.text_proj1 = nn.Linear(text.width, width, bias=False)
        self.text_proj2 = nn.Linear(width, size)
        self.layer_norm = nn.LayerNorm(size, eps=NORM_EPS)
        self.cat_audio_proj = nn.Linear(2 * width, size)
        self.proj_audio_and_text = nn.Linear(2 * size, size)
        self.finetune_data_proj = nn.Linear(size, config.scoring.width)
        self.head = nn.Linear(config.scoring.width, 4, bias=False)
        self.mean = nn.Buffer(torch.zeros(4))
        self.std = nn.Buffer(torch.ones(4))

    def forward(
        self,
        mixture: torch.Tensor,
        separated: torch.Tensor,
        ids: torch.Tensor,
        mask: torch.Tensor,
    ) -> torch.Tensor:
        """Standardised scores `[batch, 4]`."""
        frames = self.audio(torch.cat([separated, mixture])[:, None]).last_hidden_state
        sounds = self.cat_audio_proj(torch.cat(frames.chunk(2), dim=-1))
        first = self.text(ids, attention_mask=mask).last_hidden_state[:, 0]
        text = self.layer_norm(self.text_proj2(self.text_proj1(first)))
        joined = torch.cat([sounds, text[:, None].expand_as(sounds)], dim=-1)
        hidden = self.finetune_data_proj(self.proj_audio_and_text(joined))
        return self.head(self.scoring(hidden).last_hidden_state).mean(dim=1)


class _Embedded(nn.Module):
    """In place of an embedder: the second transformer gets vectors, not waves."""

    def forward(self, values: torch.Tensor, padding_mask: Any = None) -> tuple[torch.Tensor, Any]:
        return values, padding_mask


def _peav_settings(config: PeavConfig, judge: JudgeConfig) -> Any:
    import transformers

    return transformers.PeAudioEncoderConfig(
        dac_config={
            "downsampling_ratios": list(judge.encoder_rates),
            "encoder_hidden_size": judge.encoder_dim,
            "hidden_size": judge.latent_dim,
            "codebook_dim": judge.channels,
        },
        hidden_size=config.width,
        intermediate_size=config.mlp,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        head_dim=config.head_dim,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.theta},
    )


def judge_rows(config: JudgeConfig) -> list[Row]:
    """Our parameters and those of `TorchJudge`."""
    means = TensorLayout(lambda w: w, lambda w: CONV.to_theirs(w)[: config.channels])
    mean_bias = TensorLayout(lambda w: w, lambda w: w[: config.channels])
    bottleneck = "audio.embedder.bottleneck"
    linears = {"audio.embedder.data_proj": "project"}
    linears |= {theirs: ours for theirs, ours in LINEARS.items() if theirs != "data_proj"}
    rows = [
        *wave_rows(len(config.encoder_rates), "audio.embedder.dac_")[:-2],
        Row(f"{bottleneck}.weight", "wave_encoder.in_proj.kernel", means),
        Row(f"{bottleneck}.bias", "wave_encoder.in_proj.bias", mean_bias),
        *_peav_rows("audio", config.audio),
        *_peav_rows("scoring", config.scoring),
        *modernbert_rows("text.", "text.", config.text),
        *(Row(name, name) for name in ("mean", "std")),
        Row("layer_norm.weight", "text_norm.scale"),
        Row("layer_norm.bias", "text_norm.bias"),
    ]
    for theirs, ours in linears.items():
        rows.append(Row(f"{theirs}.weight", f"{ours}.kernel", LINEAR))
        if theirs not in WITHOUT_BIAS:
            rows.append(Row(f"{theirs}.bias", f"{ours}.bias"))
    return rows


def _peav_rows(name: str, config: PeavConfig) -> list[Row]:
    """`peav_rows` in transformers' own spelling."""
    words = {
        "embeddings.cls_token": "patch_embedder.class_embedding",
        "embeddings.resnet_block": "patch_embedder.resnet_block",
    }
    rows = []
    for row in peav_rows(f"{name}.", f"{name}.", config):
        theirs = row.theirs
        for old, new in words.items():
            theirs = theirs.replace(old, new)
        rows.append(Row(theirs, row.ours, row.layout, row.layers))
    return rows


def _judge(config: JudgeConfig) -> Built:
    return judge_rows(config), TorchJudge(config), TorchJudge.__call__


BUILDERS: dict[Original, Callable[[Any], Built]] = {
    "judge": _judge,
    "clap": _clap,
    "aesthetics": _aesthetics,
    "sounds": lambda config: _imagebind(config, "audio"),
    "crops": lambda config: _imagebind(config, "vision"),
    "cnn14": _cnn14,
}
