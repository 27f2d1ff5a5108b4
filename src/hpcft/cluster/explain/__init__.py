"""Why a run failed, or has not: one verdict, its evidence, and the command that mends it.

Only the last start counts, and in it the first cause. Nothing is guessed: without a line that says it, the verdict
is `unknown`.
"""

from hpcft.cluster.explain.verdict import TITLES, Cause, Evidence, Mend, Verdict

__all__ = ["TITLES", "Cause", "Evidence", "Mend", "Verdict", "verdict_of"]

from hpcft.cluster.explain.judge import verdict_of
