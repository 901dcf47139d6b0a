"""
What both `tests/` and `perf/` run against: gateways and Prometheus servers in processes of their
own, models with known answers, and load with known labels. It imports neither of them.
"""
