"""AnyFlow-FAR's network chunk by chunk (arXiv 2605.13724), as graphs of static shapes over diffusers' own modules. See `model_core.nn.wan`.

The whole past passes through at once, all but its last chunks in larger patches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.nn.causal_dit import KeyValue, Modulation
from model_core.nn.wan import CausalWan, Rotary

# AnyFlow's attention fills queries up to a multiple of this and gives the keys as many zeros, which are attended to.
_FAR_BLOCK = 128


class FlowMapFAR(CausalWan):
    """See the module's docstring.

    Args:
        transformer: an `AnyFlowFARTransformer3DModel`.
    """

    def modulate(self, t: Tensor, r: Tensor) -> Modulation:  # type: ignore[override]  # a flow map has two times
        """As `CausalWan.modulate`, of steps from times `t` `[R]` to `r` `[R]`."""
        embed = self.transformer.condition_embedder
        gate = embed.delta_emb_gate.to(self._dtype)
        other = r if embed.deltatime_type == "r" else t - r
        return self._modulation((1 - gate) * self._time(embed.time_embedder, t) + gate * self._time(embed.delta_embedder, other))

    def follow(
        self, x_t: Tensor, t: Tensor, t_next: Tensor, step: Modulation, position: Rotary, text: list[KeyValue], past: list[KeyValue]
    ) -> Tensor:
        """One step from times `t` `[B]` to `t_next` `[B]`, along the mean velocity between them. Args as in `predict`."""
        apart = (t - t_next)[:, None, None, None, None]
        return x_t - apart * self.predict(x_t, step, position, text, self._filled(past, x_t), None)

    def recommit(
        self, recent: Tensor, distant: list[Tensor], step: Modulation, position: Rotary, text: list[KeyValue], mask: Tensor
    ) -> list[KeyValue]:
        """Keys and values of the whole past, a layer each.

        Args:
            recent, distant: clean latents `[B, C, F, H, W]` of the chunks in small patches and, if there are any, of those before them, in
                large ones.
            step: that of t = r = 0.
            position: of all tokens `[B, M, P]`, the distant ones first.
            text: from `condition`, B rows.
            mask: additive `[1, 1, M, M]`: a chunk sees itself and those before it.
        """
        x = self._embed(recent, self.transformer.patch_embedding)
        x = torch.cat((*(self._embed(part, self.transformer.far_patch_embedding) for part in distant), x), 1)
        return self._slots(x, step, position, text, [None] * len(text), mask.to(x.dtype))

    def _filled(self, past: list[KeyValue], x_t: Tensor) -> list[KeyValue]:
        """With the zero keys that diffusers' attention adds, and attends to. After them the chunk: their order does not matter."""
        _, rows, columns = self.transformer.config.patch_size
        missing = -(x_t.shape[2] * (x_t.shape[3] // rows) * (x_t.shape[4] // columns)) % _FAR_BLOCK
        return [KeyValue(F.pad(key, (0, 0, 0, missing)), F.pad(value, (0, 0, 0, missing))) for key, value in past]
