"""
The gateway against the servers that people use for the same job: same model, same request, same
answer, one machine. `python -m perf.bench --help`; docs/performance.md has the method.
"""
