"""
Send every model of onnx's own backend tests to a gateway: the light CNNs as real models, and every
operator's test as a hostile input. Each must be registered and answer what onnxruntime answers, or
be refused with a code; none may cause a 500 or end the server.

    python perf/hostile_models.py [--only light|node|disk] [--every N]

Prints a table of the outcomes; exit code 1 if one is wrong.
"""

import argparse
import collections
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from testbed.gateway_process import running_gateway
from testbed.onnx_backend_models import BAD, models, outcome


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=("light", "node", "disk"))
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    began_s, turn = time.monotonic(), threading.Lock()
    table: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    notable: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        limits = {"MAX_VALIDATIONS": "2", "MAX_UPLOADS": "8"}
        environment = {**limits, "LOG_LEVEL": "error", "LOG_FORMAT": "console"}
        with running_gateway(Path(folder), environment=environment) as gateway:

            def check(item: tuple[int, tuple[str, str, bytes]]) -> None:
                index, (group, name, content) = item
                result = outcome(gateway, f"m{index}", content, turn)
                table[group][result] += 1
                if group == "light" or result.startswith("registered") or result in BAD:
                    notable.append(f"{name}: {result}")
                if sum(table[group].values()) % 200 == 0:
                    print(f"… {sum(table[group].values())} of {group}", file=sys.stderr)

            with ThreadPoolExecutor(3) as threads:
                list(threads.map(check, enumerate(models(arguments.only, arguments.every))))
            alive = gateway.client.get("/readyz").status_code == 200
    for group, outcomes in table.items():
        print(f"\n{group}: {sum(outcomes.values())} models")
        for result, count in outcomes.most_common():
            print(f"  {count:5d}  {result}")
    print("\n" + "\n".join(sorted(notable)))
    print(f"\nserver ready at the end: {alive}; took {time.monotonic() - began_s:.0f} s")
    wrong = sum(outcomes[bad] for outcomes in table.values() for bad in BAD)
    sys.exit(1 if wrong or not alive else 0)


if __name__ == "__main__":
    main()
