"""
Mixed users for locust: most classify, some tell which class was right, some look around, a few
register. Needs locust alone, so that it runs in its image as it is.

    locust -f perf/locustfile.py --headless -u 20 -t 1m --host http://127.0.0.1:3000

Each user begins its tasks at a fixed rate (`constant_throughput`), so that a slow answer does not
lower the load until every user is late: `-u` is about the number of requests a second. The exit
code is 1 when the answers of `run` are slower than --max-p99-ms at the 99th percentile, when more
than --max-error-share of all requests failed, or when there was no request at all.
"""

import base64
import logging
import random
from argparse import ArgumentParser
from typing import Any

from locust import HttpUser, constant_throughput, events, task
from locust.env import Environment

MODEL = "digits"
PROBE = "locust-probe"
RUN = "run"
# The demo model's sample: a seven of 28 x 28.
SEVEN = (
    "iVBORw0KGgoAAAANSUhEUgAAABgAAAAYCAIAAABvFaqvAAABrElEQVR42mNkkFRgoAZgwSPHIyogrCrJwMDw9vbzL68/"
    "kGMQj6iAipuBdqClnJUmROTCkv3by+bjMYgR02vyVpo+E9P4pIXRxB8du740pB2XQcwMvALIfINoh6A5eex8XJhK+WVF"
    "ecUF7uy+gNUgJjS3WBf443G/QYyjPMyz+AxiYGDA9BEa0AqwIOy1j4/f8IoLSOgpQkLk2KTNd3afZ+fh4JcVhav59eXH"
    "5VVHCMfa9rL5zy/ef3//5cNj1yEi7++/jMLhHQLRf2HpAWTuw2PXHx27LkfILCYGKgHCBslbaSI7R0BejFivQZL1+/sv"
    "BRXFJfUVlRz10KLVINoBzftYDPLsSjSIccTvRu1Ayzu7LqDlPia0ZE3QFFy+QzFIUl+RmHC9t/8SZmFAcqxdWLL/cPd6"
    "Ain799efT07fRkvKcPDp6du1SRPPzNv969sPwlnkxeUHl1cd+fLiPaZx+5pX3Nx2hrR0dGHpgXf3XqAVRphRTlQYoSWf"
    "I30byEnZnl2JyOXJhSX74XmY/Czy6elb/KU19qIWHn1/f/359eXH/YNXNmXPwBpNaAAATXeijsMMgtwAAAAASUVORK5C"
    "YII="
)
# ReduceMean, MatMul, Softmax: ten classes of the mean colour.
ONNX = base64.b64decode(
    "CAg60QIKLAoFaW1hZ2UKAncwEgJuMCIKUmVkdWNlTWVhbioPCghrZWVwZGltcxgAoAECChQKAm4wCgJ3MRICbjEiBk1h"
    "dE11bAoiCgJuMRIGc2NvcmVzIgdTb2Z0bWF4KgsKBGF4aXMYAaABAhIFZ3JhcGgqGggCEAdCAncwShABAAAAAAAAAAIA"
    "AAAAAAAAKoQBCAMIChABQgJ3MUp4IY2NPHREKD3XWIc8fHGFvblqOT3E1bY8oe/bvKYG7jwwVJU8DvRwPJxEujoD7988"
    "Z9MWvbF0BbzgecW8lEn1PFIpAjuglG+8hiIgvR+xUrxAcdU5HsZhvBuDhD1ZLU49wM8Kvllvwb1dLA+84O2svC8ELzy2"
    "BzI8WiIKBWltYWdlEhkKFwgBEhMKAxIBTgoDEgFICgMSAVcKAggDYhkKBnNjb3JlcxIPCg0IARIJCgMSAU4KAggKQgQK"
    "ABAS"
)


@events.init_command_line_parser.add_listener
def add_thresholds(parser: ArgumentParser, **_: Any) -> None:
    """Add the thresholds; each can be set by the environment too."""
    parser.add_argument(
        "--max-p99-ms", type=float, default=500.0, env_var="LOCUST_MAX_P99_MS", help="of `run`"
    )
    parser.add_argument(
        "--max-error-share", type=float, default=0.001, env_var="LOCUST_MAX_ERROR_SHARE"
    )


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """Set the exit code."""
    stats, options = environment.stats, environment.parsed_options
    assert options is not None
    p99_ms = stats.get(RUN, "POST").get_response_time_percentile(0.99) or 0.0
    found = []
    if not stats.total.num_requests:
        found.append("no request was made")
    if p99_ms > options.max_p99_ms:
        found.append(f"p99 of run is {p99_ms:.0f} ms, more than {options.max_p99_ms:.0f}")
    if stats.total.fail_ratio > options.max_error_share:
        found.append(
            f"{stats.total.fail_ratio:.2%} failed, more than {options.max_error_share:.2%}"
        )
    for line in found:
        logging.getLogger("thresholds").error(line)
    environment.process_exit_code = 1 if found else 0


class Classifier(HttpUser):
    """A script that classifies, as most are; one in ten answers gets its true class."""

    weight = 16
    wait_time = constant_throughput(1)

    @task
    def run_model(self) -> None:
        """Classify, and hold the answer against the right one."""
        with self.client.post(
            f"/api/v1/run/{MODEL}", json={"image": SEVEN}, name=RUN, catch_response=True
        ) as answer:
            if answer.status_code == 200 and answer.json() != {"category": "07"}:
                answer.failure(f"answered {answer.text}")
            request_id = answer.headers.get("X-Request-ID")
        if request_id and random.random() < 0.1:
            self._feed_back(request_id)

    def _feed_back(self, request_id: str) -> None:
        with self.client.post(
            "/api/v1/feedback",
            json={"request_id": request_id, "category": "07"},
            name="feedback",
            catch_response=True,
        ) as answer:
            if answer.status_code == 404:
                answer.success()  # Only answers of a rollout wait for feedback.


class Visitor(HttpUser):
    """Somebody who looks around, and begins with the list."""

    weight = 3
    wait_time = constant_throughput(1)

    def on_start(self) -> None:
        """List the names, so that however short a run is, it has a list in it."""
        self.list_models()

    @task(3)
    def list_models(self) -> None:
        """List the names."""
        self.client.get("/api/v1/list", name="list")

    @task(2)
    def show_model(self) -> None:
        """Show a model."""
        self.client.get(f"/api/v1/models/{MODEL}", name="models/N")

    @task(1)
    def load_loaded(self) -> None:
        """Load what is loaded: scripts do so before they run."""
        self.client.post("/api/v1/load", params={"name": MODEL}, name="load")


class Trainer(HttpUser):
    """A training job that registers; the same bytes every time, so that nothing piles up."""

    weight = 1
    wait_time = constant_throughput(0.2)

    @task
    def register(self) -> None:
        """Register a model of 348 bytes."""
        self.client.post(
            "/api/v1/register", params={"name": PROBE}, files={"file": ONNX}, name="register"
        )
