"""Operator state: what an operator decided, in SQL. SQLite by default, PostgreSQL when a URL is given.

RocksDB holds what is in force (`relay.eventlog`); this package knows nothing of it (DESIGN 5.1). Way of a decision:
`decisions.py` keeps it as pending, the sequencer applies it, `mark_applied` notes the seq. An outage of the database
is one exception, `StateUnavailable`, and never more than a statement's time limit of waiting.
"""
