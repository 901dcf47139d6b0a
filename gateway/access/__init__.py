"""
Who may ask for what. Knows no HTTP, no database and no other room.

    roles.py      infer < operator < admin
    models.py     patterns of model names
    callers.py    who asks, and what they may
    keys.py       what a key looks like, and the keyed hash that is stored of it
    keyring.py    the keys in force, as a snapshot in memory
"""
