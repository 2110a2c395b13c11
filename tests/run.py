"""``./run.sh test``: ruff, mypy and pytest, all of them even where one fails. Arguments go to pytest, which then runs alone;
``--full`` runs everything with every generated example: half an hour or more."""

import os
import subprocess
import sys
import time


def main(arguments: list[str]) -> int:
    python = sys.executable
    # Else every one of some three hundred processes compiles the package anew: a third of a second each, ten for the tests.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if arguments == ["--full"]:
        arguments = []
        os.environ.setdefault("DOUANE_EXAMPLES", "1000")
    if arguments:
        return subprocess.run([python, "-m", "pytest", *arguments]).returncode
    began = time.monotonic()
    lint = subprocess.run([python, "-m", "ruff", "check", "."]).returncode
    # Beside the tests, in the time that they wait: without a cache it takes a core for most of a minute.
    types = subprocess.Popen(["nice", python, "-m", "mypy"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    workers = str(os.cpu_count() or 1)  # one more would wait less, load everything once more, and take longer in the end
    tests = subprocess.run([python, "-m", "pytest", "-n", workers, "--dist", "loadfile"]).returncode
    said, _ = types.communicate()
    print(said, end="", flush=True)
    verdict = {"ruff": lint, "mypy": types.returncode, "pytest": tests}
    failed = [name for name, code in verdict.items() if code]
    print(f"{'failed: ' + ', '.join(failed) if failed else 'ruff, mypy and pytest passed'} in {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
