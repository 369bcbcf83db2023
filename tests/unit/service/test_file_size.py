"""Files of the size that the caller asked for, of a model that renders another."""

from __future__ import annotations

import io

import av
import numpy as np

from service.call import Call
from service.jobs.files.presentation import placement
from service.jobs.job import Presentation
from service.orders import Doorway, Mode, VideoRequest
from tests.core import core

MOST = 16 * 1024 * 1024


async def test_a_file_has_the_size_that_was_asked_for_and_black_beside_the_pictures() -> None:
    async with core() as served:
        order = served.intake.order(VideoRequest(prompt="a red circle", seconds=0.5), Doorway(Mode.FILE))
        own = await served.runner.make_file(order, Call(), MOST)
        file = await served.runner.make_file(order, Call(), MOST, placement(Presentation(128, 72), order.config))
    with av.open(io.BytesIO(file.mp4), "r") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert {frame.shape for frame in frames} == {(72, 128, 3)}
    left, middle = np.stack(frames)[:, :, :24], np.stack(frames)[:, :, 32:96]
    assert left.max() < 20
    assert middle.mean() > 40
    assert file.ended.usage == own.ended.usage
    with av.open(io.BytesIO(own.mp4), "r") as container:
        assert len(frames) == len(list(container.decode(video=0)))
