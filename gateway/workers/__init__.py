"""
Several worker processes behind one port: `gateway serve --workers N`.

    parent (parent.py)                        worker 1 … N (worker.py), gateways like any other
    ──────────────────                        ─────────────────────────────────────────────────
    accepts connections       ── door.py ──▶  serves them: HTTP, decoding, inference
    embedded Triton, news of it ─┐
    loads, repairs, quarantine   ├ link.py ─▶  knows what is loaded (control.py)
    catalog, the database's poll │        ◀──  changes aliases, rollouts; asks for loads
    adds up /metrics (totals.py)─┘        ◀──  counts requests

What must be done once is done by the parent: it alone asks Triton for loads, counts strikes and
follows MODELS_DIR. What a worker changes reaches the others through it: the answer to a change is
sent when every worker knows it.
"""
