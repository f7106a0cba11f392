"""From a published checkpoint's parameter names to ours, strictly.

Input: named tensors. Output: a network with every parameter set.
Does not: read files (``checkpoint.files``) or guess: a key that no rule covers is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from recon.errors import UserError

NAMED_AT_MOST = 6
"""How many offending keys an error lists."""


class WrongCheckpoint(UserError):
    """A file whose tensors are not those of the network it was given for."""


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """Rules that translate published names."""

    prefixes: tuple[tuple[str, str], ...]
    """(published prefix, our prefix); the longest published prefix that fits wins."""
    unused: Mapping[str, str] = field(default_factory=dict)
    """Published prefix -> why no parameter of ours takes it. Such keys may be present or absent."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Published key -> the key that stands for the same tensor, which a file may store alone."""

    def translate(self, key: str) -> str | None:
        """Return our name for a published key, or None when the key is known and unused.

        Raises:
            KeyError: no rule covers the key.
        """
        if any(key.startswith(prefix) for prefix in self.unused):
            return None
        fitting = [pair for pair in self.prefixes if key.startswith(pair[0])]
        if not fitting:
            raise KeyError(key)
        published, ours = max(fitting, key=lambda pair: len(pair[0]))
        return ours + key[len(published) :]

    def published_name(self, ours: str) -> str:
        """Return the published key of our parameter."""
        fitting = [pair for pair in self.prefixes if ours.startswith(pair[1])]
        published, prefix = max(fitting, key=lambda pair: len(pair[1]), default=("", ""))
        return published + ours[len(prefix) :]


@dataclass(frozen=True, kw_only=True)
class Match:
    """How the names and shapes of a file fit a network."""

    sources: Mapping[str, str]
    """Our parameter -> the published key it is filled from."""
    unused: tuple[str, ...]
    """Published keys that are known and not needed."""
    missing: tuple[str, ...]
    """Published names of our parameters that nothing fills."""
    unexpected: tuple[str, ...]
    """Published keys that no rule covers or that lead to no parameter."""
    misshapen: tuple[str, ...]
    """Sentences about tensors of the wrong shape."""

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.misshapen)


def match_keys(network: nn.Module, keys: KeyMap, shapes: Mapping[str, tuple[int, ...]]) -> Match:
    """Compare the tensors of a file with the parameters of a network.

    Args:
        network: may live on the meta device.
        shapes: published key -> shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    sources: dict[str, str] = {}
    unused, unexpected, misshapen, seen = [], [], [], set()
    stand_ins = {copy: shapes[original] for copy, original in keys.copies.items() if copy not in shapes and original in shapes}
    for key, shape in {**shapes, **stand_ins}.items():
        try:
            ours = keys.translate(key)
        except KeyError:
            unexpected.append(key)
            continue
        if ours is None:
            unused.append(key)
        elif ours not in wanted:
            unexpected.append(key)
        else:
            seen.add(ours)
            sources[ours] = key if key in shapes else keys.copies[key]
            if wanted[ours] != tuple(shape):
                misshapen.append(f"{key} is {tuple(shape)}, wanted {wanted[ours]}")
    missing = tuple(keys.published_name(name) for name in wanted if name not in seen)
    return Match(sources=sources, unused=tuple(unused), missing=missing, unexpected=tuple(unexpected), misshapen=tuple(misshapen))


def require_match(match: Match, *, network_name: str, file_name: str, looks_like: str | None = None) -> None:
    """Raise ``WrongCheckpoint`` with the offending keys unless the file fits exactly.

    Args:
        looks_like: the network whose keys the file does have, when one is known.
    """
    if match.complete:
        return
    parts = [
        f"{len(names)} {kind} ({_some(names)})"
        for kind, names in (("missing", match.missing), ("unexpected", match.unexpected), ("of wrong shape", match.misshapen))
        if names
    ]
    remedy = (
        f"It has the keys of {looks_like}: load it under that name."
        if looks_like
        else f"Give the published file of {network_name}, or pull it with `recon weights pull {network_name}`."
    )
    raise WrongCheckpoint(f"{file_name} is not a checkpoint of {network_name}: {'; '.join(parts)}.", remedy)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - NAMED_AT_MOST
    return ", ".join(listed[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def fill(
    network: nn.Module,
    match: Match,
    read: Callable[[str], Tensor],
    *,
    device: torch.device | str,
    dtypes: Mapping[str, torch.dtype] | None = None,
) -> None:
    """Give a network on the meta device the tensors of a file, one at a time, on ``device``.

    Args:
        match: a complete match.
        read: published key -> tensor, so that a file need not fit in memory beside the network.
        dtypes: our parameter -> number format it is kept in; all others are float32.
    """
    kept = dtypes or {}
    for name, held in list(network.named_parameters()) + list(network.named_buffers()):
        owner, _, leaf = name.rpartition(".")
        value = read(match.sources[name]).to(device=device, dtype=kept.get(name, torch.float32))
        module = network.get_submodule(owner)
        if isinstance(held, nn.Parameter):
            setattr(module, leaf, nn.Parameter(value, requires_grad=False))
        else:
            module.register_buffer(leaf, value)
    network.eval()


def dense_head_keys(published: str, ours: str) -> tuple[tuple[str, str], ...]:
    """List the rules for a dense head, whose published names are the same in every network.

    Args:
        published: prefix of the head in the file, with its dot.
        ours: prefix of the ``DenseHead``, with its dot.
    """
    rules = [(f"{published}{name}", f"{ours}pyramid.{name}") for name in ("norm.", "projects.", "resize_layers.")]
    rules += [(f"{published}scratch.layer{k + 1}_rn.", f"{ours}pyramid.levels.{k}.") for k in range(4)]
    rules += [(f"{published}scratch.refinenet{k + 1}.", f"{ours}fusion.stages.{k}.") for k in range(4)]
    rules += [(f"{published}scratch.output_conv{k}.", f"{ours}output{k}.") for k in (1, 2)]
    return tuple(rules)
