"""What a replay counts, and what follows from it: the analysis of a shadow."""

from dataclasses import dataclass, field

import numpy as np

from gateway.registry.versions import Model
from gateway.rollouts.live.counting import StepCounts
from gateway.rollouts.live.mirror import Reply
from gateway.rollouts.live.recordings import Recorded
from gateway.rollouts.state.classes import ClassMap, class_map, translated
from gateway.rollouts.state.plan import Plan
from gateway.rollouts.statistics.analysis import Step, analyse
from gateway.rollouts.statistics.metrics import Strategy
from gateway.rollouts.statistics.verdict import Verdict
from gateway.store.replays import Progress


@dataclass(slots=True)
class ReplayCounts:
    """
    Counts of one replay.

    Attributes:
        asked: Requests that both versions were asked.
        skipped: Those that could not be read.
        labelled: Those asked whose true class is known.
        step: What the analysis sees.
    """

    asked: int = 0
    skipped: int = 0
    labelled: int = 0
    step: StepCounts = field(default_factory=StepCounts)

    @property
    def progress(self) -> Progress:
        """The numbers for people."""
        return Progress(self.asked, self.skipped, self.labelled)

    def add(
        self,
        champion: Reply | None,
        candidate: Reply | None,
        classes: ClassMap | None,
        label: int | None,
        *,
        timed: bool,
    ) -> None:
        """
        Count what the two versions said to one request.

        Args:
            champion, candidate: Their replies; None where one failed.
            classes: The champion's number for each class of the candidate.
            label: The true class in the champion's numbering, negative if it does not know it; None
                if nobody told it.
            timed: The times may be compared: callers left room.
        """
        self.asked += 1
        self.labelled += label is not None
        for arm, reply in ((self.step.champion, champion), (self.step.challenger, candidate)):
            if reply is None:
                arm.failed()
            else:
                arm.answered()
        if champion is None or candidate is None:
            self.step.shared += champion is candidate
            return
        if timed:
            self.step.champion.timed(champion.latency_s)
            self.step.challenger.timed(candidate.latency_s)
        self.step.compared_scores(champion.scores, candidate.scores, classes)
        if label is None:
            return
        if label < 0 or (classes is not None and label not in classes):
            self.step.apart += 1
            return
        theirs = translated(int(np.argmax(candidate.scores)), classes)
        self.step.judged_pair(
            label,
            champion_right=int(np.argmax(champion.scores)) == label,
            challenger_right=theirs == label,
        )

    def verdict(self, plan: Plan, *, now_s: float) -> Verdict:
        """
        Judge them as the counts of a shadow.

        Args:
            plan: Its metrics, `alpha` and `min_samples`.
            now_s: Unix seconds.
        """
        return analyse(
            self.step.freeze(),
            metrics=plan.metrics,
            at=Step(strategy=Strategy.SHADOW, now=now_s),
            comparisons=plan.comparisons,
            min_samples=plan.min_samples,
            alpha=plan.alpha,
        )


def label_for(recorded: Recorded, model: Model, champion: int) -> int | None:
    """
    Translate a recorded request's true class to the champion's numbering.

    Returns:
        None if nobody told it, or the version whose numbering it has is gone; negative if the
        champion does not know the class.
    """
    if recorded.label is None or recorded.label < 0 or recorded.version == champion:
        return recorded.label
    then = model.versions.get(recorded.version)
    if then is None:
        return None
    now = model.version(champion)
    classes = class_map(now.labels, then.labels, sizes=(now.classes, then.classes))
    return translated(recorded.label, classes)
