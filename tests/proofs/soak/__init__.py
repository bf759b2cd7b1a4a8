"""The soak: everything on one database for 20 minutes or an hour, judged by bounds.

    python -m tests.proofs.soak --minutes 20          `make soak`

What runs, all at once:

* Two gateway processes. One lives for the whole run, so that a leak can show. The other
  one is killed again and again.
* People who talk in many conversations and remember every acknowledgement.
* Compactions that are quick, slow, failing, late or without progress.
* Retention that archives, restores and deletes. Imports of files that grow. Backups
  that are opened and audited.
* Commands of the command line as processes (some of them killed), and readers that hold
  a snapshot for seconds.
* Troubles of other kinds, each with its rate in the plan (`troubles.py`). Handlers and
  senders do what they must not do. Something comes between an interrupted message and its
  resume. Lanes that nobody runs, a dead channel, a clock that is set, containers.

`watch.py` samples every second, `judge.py` has the bounds, `report.py` draws the table.
`audit.py` compares a database (the last one and every backup) with what people
remember. A broken bound is named with its moment. The exit code is then 1.

Not modelled: power cuts and failing disks (other harnesses do that), other hosts, a
clock that jumps by hours. The bounds are of bytes, counts,
states and trends. Only two are of times: how late the gateways' event loops are, beside
an idle process, and the longest transaction without its sync. Both are generous,
because the machine is shared.
"""
