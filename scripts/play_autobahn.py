"""Plays the Autobahn test suite against the echo of src/edge/web/ws/tests.rs, and judges its report.

    play_autobahn.py FOLDER [CASES...]

FOLDER has the suite, and gets its reports. CARGO_FLAGS are those with which the tests of the library are built;
AUTOBAHN_LIBRARIES is where the libraries of the suite are, if the system does not have them.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ECHO = "edge::web::ws::tests::serves_an_echo"
# Frames, pings, reserved bits, opcodes, fragments, UTF-8, closes, limits, and a message in many writes. 12 and 13 are
# about compression, which the hub does not offer.
ALL = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
# Their messages have 8 and 16 MiB, in one frame and in fragments: above the limit of the hub, which is told by this code.
ABOVE_THE_LIMIT = {"9.1.5", "9.1.6", "9.2.5", "9.2.6"}
TOO_LARGE = 1009
# Of a case that is informational, the suite only notes what came.
GOOD = {"OK", "INFORMATIONAL"}
# What may take longer hangs.
SECONDS = 300


def fail(text: str) -> None:
    sys.exit(f"autobahn: {text}")


def build() -> str:
    """The program with the tests of the library, which is the echo, too."""
    flags = os.environ.get("CARGO_FLAGS", "--locked --package switchyard").split()
    command = ["cargo", "test", *flags, "--lib", "--no-run", "--message-format=json-render-diagnostics"]
    built = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if built.returncode != 0:
        fail("the echo does not build")
    for message in map(json.loads, built.stdout.splitlines()):
        if message.get("executable") and message["target"]["name"] == "switchyard" and "lib" in message["target"]["kind"]:
            return message["executable"]
    fail("cargo built no tests of the library")


def start(program: str) -> tuple[subprocess.Popen, str]:
    """An echo, and where it listens."""
    command = [program, "--ignored", "--exact", ECHO, "--nocapture"]
    environment = {**os.environ, "ECHO_LISTEN": "127.0.0.1:0"}
    echo = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    for line in echo.stdout:
        if "echo on " in line:
            return echo, line.split("echo on ")[1].strip()
    fail("the echo does not start")


def play(folder: Path, address: str, cases: list[str]) -> tuple[dict, float]:
    """What the suite says of each case, and how long all took."""
    reports, begun = folder / "reports", time.monotonic()
    shutil.rmtree(reports, ignore_errors=True)
    spec = {
        "outdir": str(reports),
        "servers": [{"agent": "switchyard", "url": f"ws://{address}"}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    command = [folder / "venv/bin/wstest", "--mode", "fuzzingclient", "--spec", folder / "spec.json"]
    environment = {**os.environ, "LD_LIBRARY_PATH": os.environ.get("AUTOBAHN_LIBRARIES", "")}
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        try:
            played = subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            fail(f"the suite was not done after {SECONDS} s: {log.name}")
    if played.returncode != 0 or not (reports / "index.json").exists():
        fail(f"the suite did not run: {log.name}")
    results = json.loads((reports / "index.json").read_text(encoding="utf-8"))["switchyard"]
    return results, time.monotonic() - begun


def verdict(case: str, result: dict) -> str:
    if case in ABOVE_THE_LIMIT:
        return "refused as too large" if result["remoteCloseCode"] == TOO_LARGE else "NOT REFUSED"
    outcomes = {result["behavior"], result["behaviorClose"]}
    bad = sorted(outcomes - GOOD)
    if bad:
        return bad[0]
    return "informational" if "INFORMATIONAL" in outcomes else "ok"


def number(case: str) -> list[int]:
    return [int(part) for part in case.split(".")]


def main() -> None:
    folder, cases = Path(sys.argv[1]), sys.argv[2:] or ALL
    echo, address = start(build())
    try:
        results, took = play(folder, address, cases)
        if echo.poll() is not None:
            fail("the echo has ended")
    finally:
        echo.kill()
        echo.wait()
    verdicts = {case: verdict(case, results[case]) for case in sorted(results, key=number)}
    sections: dict[int, Counter] = {}
    for case, said in verdicts.items():
        sections.setdefault(number(case)[0], Counter())[said] += 1
    for section, counts in sections.items():
        print(f"autobahn: section {section:2}: " + ", ".join(f"{count} {said}" for said, count in counts.items()))
    empty = [wanted for wanted in cases if not any(matches(case, wanted) for case in verdicts)]
    if empty:
        fail(f"no case was played of {', '.join(empty)}")
    bad = [case for case, said in verdicts.items() if said[0].isupper()]
    for case in bad:
        print(f"autobahn: {case}: {verdicts[case]}: {folder / 'reports' / results[case]['reportfile']}")
    print(f"autobahn: {len(verdicts) - len(bad)} passed, {len(bad)} failed, in {took:.0f} s")
    sys.exit(bool(bad))


def matches(case: str, wanted: str) -> bool:
    return case == wanted or (wanted.endswith("*") and case.startswith(wanted[:-1]))


main()
