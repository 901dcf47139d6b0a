"""
Several worker processes behind one port: `gateway serve --workers N`.

    parent/                                      child/, N times: a gateway like any other
    ───────                                      ─────────────────────────────────────────
    acceptor.py    accepts connections ─handover─▶ connections.py   serves them
    pool.py        starts the processes            main.py          one worker's life
    calls.py       answers calls       ◀─channel─▶ control_plane.py asks the parent to load
    state_feed.py  what is loaded      ─channel──▶ control_plane.py knows what is loaded
    propagation.py who knows which change ◀──────  says what it knows
    totals.py      adds up /metrics    ◀─channel─  peers.py         sends what it counted

`wire/` is what lies between: the messages, their one codec, the channel that carries them, and the
hand-over of connections.

What must be done once is done by the parent: it alone asks Triton for loads, counts strikes and
follows MODELS_DIR. What a worker changes reaches the others through it: the answer to a change is
sent when every worker knows it. Why that is needed: docs/decisions/0010.
"""
