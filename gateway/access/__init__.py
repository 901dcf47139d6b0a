"""
Who may ask for what. Knows no HTTP of ours, and no other room but for reading what is stored.

    roles.py      infer < operator < admin
    models.py     patterns of model names
    callers.py    who asks, and what they may
    limits.py     how fast a caller may ask
    keys.py       what a key looks like, and the keyed hash that is stored of it
    keyring.py    the keys in force, as a snapshot in memory
    opening.py    opens what the settings say

By the word of an identity provider (OpenID Connect); imported only where there is one:

    grants.py     which role and models a token's claims give; pure
    signing.py    the issuer's keys, and the check of one token by them; pure
    issuer.py     asks the issuer: its metadata, its keys, a code for a token
    tokens.py     the tokens that are known, and those that have to be checked
    seals.py      what a browser keeps for us: signed, and good for a time; pure
    sign_in.py    a person's browser signs in: authorization code with PKCE
    issuer_opening.py    opens these
"""
