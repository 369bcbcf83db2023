"""A decoder of uploads that obeys the protocol of `model_core.uploads.worker` and does what each file tells it, in words.

They may come behind the signature of a PNG or a JPEG file.

frames      one image, grey by how many files this process has been given
refuse      refuse, and tell this process's descriptors and environment
memory      say that there was not enough of it
sleep NAME  write this process's id into the file, and never answer
signal N    end by that signal
killed N F  the first N times be killed, as the machine would; then as `frames`. Each time adds a byte to the file F
lie         promise many more frames than were wanted
babble      answer what is no message
"""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

from model_core.uploads import worker

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


def main() -> None:
    source, target = open(0, "rb", buffering=0), open(1, "wb", buffering=0)  # noqa: SIM115 - for as long as it lives
    worker.write(target, {"ready": True})
    served = 0
    while True:
        job = worker.read_json(source)
        served += 1
        said = bytes(worker.read_bytes(source, job["bytes"])).removeprefix(PNG).removeprefix(JPEG)
        word, _, rest = said.decode().partition(" ")
        if word == "killed":
            survive(*rest.split(" "))
            word = "frames"
        match word:
            case "frames":
                size = job["wanted"]["height"] * job["wanted"]["width"] * 3
                worker.write(target, {"frames": 1}, (bytes([served]) * size,))
            case "refuse":
                worker.write(target, {"refused": f"{sorted(file.name for file in Path('/proc/self/fd').iterdir())} {sorted(os.environ)}"})
            case "memory":
                worker.write(target, {"memory": True})
            case "sleep":
                Path(rest).write_text(str(os.getpid()))
                signal.pause()
            case "signal":
                os.kill(os.getpid(), int(rest))
            case "lie":
                worker.write(target, {"frames": 10**12})
            case "babble":
                target.write(struct.pack(">I", 2**31))


def survive(times: str, name: str) -> None:
    """See `killed`."""
    with Path(name).open("ab") as file:
        file.write(b".")
    if Path(name).stat().st_size <= int(times):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
