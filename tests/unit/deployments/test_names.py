from __future__ import annotations

import pytest

from deployments.config.names import STAGE_DEPLOYMENTS, deployment_name
from model_core.stage import Stage
from observability.catalogue import Process


def test_the_default_model_s_deployments_are_named_after_their_stage_alone() -> None:
    names = ["TextEncoder", "Denoiser", "Decoder"]
    assert [deployment_name(stage) for stage in Stage] == list(STAGE_DEPLOYMENTS.values()) == names
    assert set(names) < {str(process) for process in Process}


def test_another_model_s_deployments_are_named_after_it_too() -> None:
    assert deployment_name(Stage.DENOISER, "wan-1.3b") == "Denoiser@wan-1.3b"
    assert len({deployment_name(stage, model) for stage in Stage for model in ("", "a", "b")}) == 9


@pytest.mark.parametrize("model", ["a#b", "a@b"])
def test_a_model_s_name_cannot_pass_for_another_deployment_s(model: str) -> None:
    with pytest.raises(ValueError, match="must be without # and @"):
        deployment_name(Stage.DENOISER, model)
