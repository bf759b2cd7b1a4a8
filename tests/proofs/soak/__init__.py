"""The soak: an hour of everything at once on one database, and bounds that are looked
at every second.

    python -m tests.proofs.soak --minutes 60          `make soak`

What runs: two gateway processes (one lives for the whole run, so that a leak can show.
The other one is killed again and again), people who talk in many conversations and
remember what was acknowledged, compactions that are quick, slow, failing, late or
without progress, retention that archives, restores and deletes, imports of files that
grow, backups that are opened and audited, commands of the command line as processes
(some of them killed), and readers that hold a snapshot for seconds.

What is looked at: `watch.py` samples, `judge.py` has the bounds and draws the table,
`audit.py` compares a database (the last one and every backup) with what people
remember. A bound that is broken is named with the moment. The exit code is then 1.

What is not modelled: power cuts and failing disks (other harnesses do that), other
hosts, a clock that jumps, a channel that is slow for minutes. What is judged are bytes,
counts, states and trends. Of times only how late the gateways' event loops are, against
an idle process beside them, and the longest transaction without its sync, both
generously: the machine is shared.
"""
