"""Decart's `decart-oasis`, as anybody installs it, against a server: `python -m bench.doors.oasis_check --url http://127.0.0.1:50051`.

Its environment is `requirements-oasis.txt`. The URL is of the gRPC port.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from decart_oasis import A2VClient

from bench.doors.cases import Cases, Skipped, Target, check, raises

PROMPT = "a red circle moving right"
FORWARD = [[0.2, 0.0]] * 4


def main() -> None:
    target, cases = Target.of_arguments(), Cases("oasis")
    run = Check(target)
    cases.run_all(
        (
            ("create", run.create),
            ("fetch", run.fetch),
            ("another scene", run.again),
            ("cancel", run.finish),
            ("wrong key", run.wrong_key),
            ("over quota", run.over_quota),
            ("bad input", run.bad_input),
        )
    )
    cases.end()


class Check:
    """What a caller does, with a sound key and without one."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.client: Any = None

    def _client(self, key: str) -> Any:
        url = self.target.url
        return A2VClient(url if "://" in url else f"http://{url}", api_key=key)  # which takes a bare address for TLS

    def create(self) -> str:
        self.client = self._client(self.target.key)
        streams = self.client.initialize()
        self.client.prompt(PROMPT)
        return f"{streams}"

    def fetch(self) -> str:
        shapes = set()
        for number in range(12):
            result = self.client.infer(FORWARD)
            check(result.sequence_num == number, f"sequence_num {result.sequence_num}, not {number}")
            check({"left_forward", "front", "right_forward"} <= set(result.frames), f"streams {sorted(result.frames)}")
            shapes |= {np.asarray(frame).shape for frame in result.frames["front"]}
            check(len(result.frames["front"]) == 4, f"{len(result.frames['front'])} frames")
        return f"frames of {shapes}"

    def again(self) -> None:
        self.client.prompt("a blue square")
        check(self.client.infer(FORWARD).sequence_num == 0, "a new prompt does not begin at 0")

    def finish(self) -> None:
        self.client.close()

    def wrong_key(self) -> str:
        if not self.target.wrong_key:
            raise Skipped("the server takes any key")
        return f"{raises(Exception, lambda: self._client(self.target.wrong_key).initialize())}"

    def over_quota(self) -> str:
        if not self.target.spent_key:
            raise Skipped("no key whose quota is used up")
        with ExitStack() as stack:
            client = stack.enter_context(self._client(self.target.spent_key))
            return f"{raises(Exception, lambda: client.prompt(PROMPT))}"

    def bad_input(self) -> str:
        with self._client(self.target.key) as client:
            told = [f"{raises(Exception, lambda: client.infer(FORWARD), 'prompt')}"]
            told.append(f"{raises(Exception, lambda: client.prompt(' '), 'prompt', 'white space')}")
        return " | ".join(told)


if __name__ == "__main__":
    main()
