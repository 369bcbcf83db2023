"""Every vendor's own client against one real cluster with stock settings: `python -m bench.doors.run` (`make doors`).

Each check, `NAME_check.py` beside this file, runs in an environment of its own under build/doors, with the packages of
`requirements-NAME.txt`: what one client needs is no business of another's, nor of the server's. The table has a row for each case.
The server asks for keys, so that a wrong key and a spent one can be tried; `--open` starts one that asks for none.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.kit.environments import environment as made
from deployments.cluster.local import STAGED_CONFIG

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "doors"

# Checks that share another's environment.
_LIKE = {"azure": "openai"}
_S3_URL = "http://127.0.0.1:9555"  # where the check of Bedrock has its S3
_BUCKET = "headrace-check"
_CHECK_WITHIN_S = 1800.0


@dataclass(frozen=True, slots=True)
class Keys:
    """What checks present; all empty where the server asks for none."""

    key: str = "none"
    pair: str = "none"
    wrong: str = ""
    spent: str = ""
    spent_pair: str = ""

    def arguments(self, door: str) -> list[str]:
        """Amazon's client signs with a pair; the others send a key."""
        key, spent = (self.pair, self.spent_pair) if door == "bedrock" else (self.key, self.spent)
        return ["--key", key, *(["--wrong-key", self.wrong] if self.wrong else []), *(["--spent-key", spent] if spent else [])]


@dataclass(slots=True)
class Result:
    """What one check said."""

    door: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    @property
    def passed(self) -> bool:
        return not self.error and bool(self.rows) and all(row["outcome"] != "failed" for row in self.rows)


def doors() -> list[str]:
    """All checks, by name."""
    return sorted(path.name.removesuffix("_check.py") for path in HERE.glob("*_check.py"))


def environment(door: str) -> Path:
    """The Python of the check's own environment, which is made if need be. Raises as `bench.kit.environments`."""
    name = _LIKE.get(door, door)
    return made(HERE / f"requirements-{name}.txt", BUILD / name)


def check(door: str, url: str, grpc: str, keys: Keys) -> Result:
    """Run one."""
    result = Result(door)
    try:
        python = environment(door)
    except (OSError, subprocess.CalledProcessError) as error:
        result.error = f"its environment cannot be made: {error}"
        return result
    target = ["--url", f"http://{grpc}" if door in {"triton", "oasis"} else url]
    command = [str(python), "-m", f"bench.doors.{door}_check", *target, *keys.arguments(door)]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "HEADRACE_CHECK_S3": _S3_URL}
    try:
        ran = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=_CHECK_WITHIN_S, check=False)
    except subprocess.TimeoutExpired:
        result.error = f"it did not end within {_CHECK_WITHIN_S:g} s"
        return result
    for line in ran.stdout.splitlines():
        if line.startswith("{"):
            result.rows.append(json.loads(line))
    if ran.returncode and result.passed:
        result.error = f"exit code {ran.returncode}: {ran.stderr.strip()[-600:]}"
    return result


@contextmanager
def server(folder: Path, *, with_keys: bool) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The cluster: its URL, its address for gRPC, and the environment that commands beside it need."""
    document = yaml.safe_load(STAGED_CONFIG.read_text("utf-8"))
    args = document["applications"][0]["args"]
    # To this machine too: a check waits there for what a webhook is told.
    webhooks = {"allowed_networks": ["127.0.0.0/8"]}
    args["jobs"] = {**(args.get("jobs") or {}), "destinations": {"region": "us-east-1", "endpoint_url": _S3_URL}, "webhooks": webhooks}
    surroundings = {
        **os.environ, "PYTHONPATH": str(ROOT), "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_ENDPOINT_URL_S3": _S3_URL,
    }  # fmt: skip
    if with_keys:
        args["identity"] = {**(args.get("identity") or {}), "keys": "required"}
        surroundings["HEADRACE_MASTER_SECRET"] = secrets.token_hex(32)
    else:
        args["identity"] = {**(args.get("identity") or {}), "open_buckets": [_BUCKET]}
    config = folder / "serve.yaml"
    config.write_text(yaml.safe_dump(document), "utf-8")
    command = [
        sys.executable, "-m", "headrace", "serve", "--config", str(config), "--port", "0", "--http-port", "0", "--metrics-port", "0",
        "--state", str(folder / "state"),
    ]  # fmt: skip
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=surroundings, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        try:
            words = (process.stdout.readline() if process.stdout else "").split()
            if words[:1] != ["READY"] or len(words) != 3:
                raise RuntimeError(f"the server did not start; {(folder / 'serve.log').read_text('utf-8')[-2000:]}")
            yield words[2], words[1], surroundings
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def keys_of(folder: Path, surroundings: dict[str, str]) -> Keys:
    """A sound key, one of a tenant that may do no more, and one that nobody made."""
    state = ["--state", str(folder / "state")]

    def headrace(*arguments: str) -> str:
        command = [sys.executable, "-m", "headrace", *arguments, *state]
        return subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=True).stdout

    sound = json.loads(headrace("keys", "create", "--tenant", "acme", "--buckets", _BUCKET, "--json"))
    spent = json.loads(headrace("keys", "create", "--tenant", "spent", "--buckets", _BUCKET, "--json"))
    headrace("tenants", "set", "spent", "--budget-seconds", "0")
    wrong = f"{sound['key'][:-4]}aaaa"
    return Keys(sound["key"], _pair(sound), wrong, spent["key"], _pair(spent))


def _pair(made: dict[str, Any]) -> str:
    return f"{made['access_key_id']}:{made['secret_access_key']}"


def table(results: Sequence[Result]) -> Iterator[str]:
    """The report."""
    for result in results:
        for row in result.rows:
            yield f"{row['outcome']:<8} {result.door:<10} {row['case']:<32} {row.get('seconds', 0):>8.2f} s  {_line(row.get('detail', ''))}"
        if result.error or not result.rows:
            yield f"{'failed':<8} {result.door:<10} {result.error or 'it said nothing'}"
    outcomes = [row["outcome"] for result in results for row in result.rows]
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in ("passed", "skipped", "failed"))
    yield f"{counts}; {sum(result.passed for result in results)} of {len(results)} doors"


def _line(detail: str) -> str:
    return " ".join(detail.split())[:100]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("doors", nargs="*", help="only these")
    parser.add_argument("--open", action="store_true", help="a server that asks for no keys")
    parser.add_argument("--url", default="", help="a server that runs; it must ask for no keys")
    parser.add_argument("--grpc", default="127.0.0.1:50051", help="its address for gRPC")
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    unknown = set(a.doors) - set(doors())
    if unknown:
        parser.error(f"doors must be among {', '.join(doors())}; got {', '.join(sorted(unknown))}")
    wanted = a.doors or doors()
    with tempfile.TemporaryDirectory(prefix="headrace-doors-") as name:
        if a.url:
            results = [check(door, a.url, a.grpc, Keys()) for door in wanted]
        else:
            for door in wanted:
                environment(door)  # before the server takes the processor
            os.environ["HEADRACE_CHECK_WEBHOOKS"] = "1"  # this server posts to this machine, as its settings say
            with server(Path(name), with_keys=not a.open) as (url, grpc, surroundings):
                keys = Keys() if a.open else keys_of(Path(name), surroundings)
                results = [check(door, url, grpc, keys) for door in wanted]
    print("\n".join(table(results)))
    if a.json:
        a.json.write_text(json.dumps([row for result in results for row in result.rows], indent=1) + "\n")
    sys.exit(0 if all(result.passed for result in results) else 1)


if __name__ == "__main__":
    main()
