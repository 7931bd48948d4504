"""What is known of a run before it starts, and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from anarch_core.cards import Place
from anarch_core.config.run_config import RunConfig
from anarch_core.display import Displayed, Overview, Table
from anarch_core.experiment.segments import Segment
from anarch_core.experiment.store import RunStore
from anarch_core.machine import human_bytes, human_duration
from anarch_core.planning.by_shards import SharedOut, table
from anarch_core.planning.duration import by_jobs, longest_way, run_seconds
from anarch_core.planning.footprint import Footprint
from anarch_core.schedule import Clock, Moment


@attrs.frozen(kw_only=True)
class NetworkPlan:
    """The constrained network, or what a relaxation makes of it.

    Attributes:
        footprint: what it takes.
        flops: floating-point operations of one forward pass of one sample (a multiply-add counts two).
        needed_bytes: by what a process takes them for: training, evaluating, each probe; the data set, which it has already, left out.
        largest_batch: samples per step that would fit the memory that is free; 0 where none does, None where activations are not counted.
        step_seconds: measured time of one optimizer step, None if it was not measured, as where several processes would take it together.
        segments: how many segments train it.
        iterations: optimizer steps they take in all.
    """

    footprint: Footprint
    flops: int
    needed_bytes: Mapping[str, int]
    largest_batch: int | None
    step_seconds: float | None
    segments: int
    iterations: int


@attrs.frozen(kw_only=True, repr=False)
class RunPlan(Displayed):
    """What a run would do.

    Attributes:
        config: complete, with the device resolved.
        samples: sizes of the parts of the data by name.
        input_shape: of one input.
        read_in_batches: whether inputs are kept in the host's memory and files.
        clock: of the trunk.
        moments: switch times known beforehand; a schedule may find more while the trunk trains.
        segments: that follow from them.
        networks: that are trained.
        free_bytes: memory of the device, or of the first of several cards.
        room_bytes: what a process can have of it.
        elsewhere: whether it is trained by workers on other machines: memory and times are then those of this machine's processor.
        places: where segments would be trained at once on this machine; none where workers elsewhere do, or the run would not start.
        shared_out: its networks as more and more processes would hold them; empty where one process is asked for, and fits.
        notes: lines about them.
        refusal: why the run would not start, None if it would.
    """

    config: RunConfig
    samples: Mapping[str, int]
    input_shape: tuple[int, ...]
    read_in_batches: bool
    clock: Clock
    moments: tuple[Moment, ...]
    segments: tuple[Segment, ...]
    networks: tuple[NetworkPlan, ...]
    free_bytes: int
    room_bytes: int
    elsewhere: bool
    places: tuple[Place, ...]
    shared_out: tuple[SharedOut, ...]
    notes: tuple[str, ...]
    refusal: str | None

    @property
    def seconds(self) -> float | None:
        """How long training and scores take, if nothing else runs on the machine; None if it was not measured. Probes are left out."""
        pace = self._pace()
        return None if pace is None else run_seconds(self.segments, pace, samples=self.samples, jobs=self.at_once)

    @property
    def at_once(self) -> int:
        """Segments that are trained at the same time."""
        return len(self.places) or self.config.jobs or 1

    def _pace(self) -> Mapping[str, float] | None:
        """Seconds of a step by identity of the segment; None where a network was not timed."""
        pace = {id: network.step_seconds for network in self.networks for id in network.footprint.architecture.segments}
        known = {id: seconds for id, seconds in pace.items() if seconds is not None}
        return known if len(known) == len(pace) else None

    def overview(self) -> Overview:
        """Facts, networks and memory; shown by ``print`` and by notebooks."""
        refusal = [] if self.refusal is None else [f"This run would not start: {self.refusal}"]
        return Overview(title="Plan of a run", facts=self.facts(), tables=self.tables(), notes=[*self.notes, *refusal])

    def tables(self) -> list[Table]:
        """Networks, memory, what processes would hold that share them out, and time by segments at once where there are several."""
        times = self.times()
        shared_out = [table(self.shared_out, cards=self.config.device != "cpu")] if self.shared_out else []
        return [self.costs(), self.memory(), *shared_out, *([] if times is None else [times])]

    def facts(self) -> list[tuple[str, str]]:
        """What would be done with what, in words."""
        config = self.config
        sizes = ", ".join(f"{count:,} {name}" for name, count in self.samples.items())
        moments = ", ".join(str(moment) for moment in self.moments) or "found while the trunk trains"
        steps = self.clock.iterations_per_epoch
        epochs = sum(segment.settings.iterations for segment in self.segments) / steps
        kinds = [segment.kind for segment in self.segments]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        store = RunStore(config.directory)
        there = sum(store.segment(segment.id).result_file.exists() for segment in self.segments)
        facts = [
            ("data", f"{config.data}: {sizes} samples of shape {'×'.join(map(str, self.input_shape))}"),
            *([("inputs", "kept in the host's memory and files, read a batch ahead")] if self.read_in_batches else []),
            *([("augment", ", ".join(config.augment))] if config.augment else []),
            ("model", str(config.model)),
            ("trunk", f"{config.epochs} epochs of {steps} steps, {config.optimizer}, {config.lr:g} ({config.lr_schedule})"),
            ("branches", f"{config.branch_epochs} epochs, {config.branch_lr:g} ({config.branch_lr_schedule})"),
            *([("switch", f"{config.switch}: {moments}")] if config.asks_schedule else []),
            *(("path", path) for path in config.path),
            *(("watch", f"{name} on the trunk, {_how_often(config, name)}") for name in config.watch),
            *([("penalty", f"{', '.join(config.penalty)}, on relaxed layers")] if config.penalty else []),
            *([("gradients", f"shortened to a 2-norm of {config.clip_norm:g}")] if config.clip_norm is not None else []),
            *([("average", f"{config.average}, held and measured beside the weights")] if config.average is not None else []),
            *([("stop early", f"{config.stop_early} epochs without improvement")] if config.stop_early is not None else []),
            ("seeds", ", ".join(map(str, config.seeds))),
            ("segments", f"{len(self.segments)} ({counts}), {epochs:,.0f} epochs in all"),
            *self._where(),
            *(
                [("shards", f"{config.shards} processes train a segment together, each has a part of every relaxed layer")]
                * (config.shards > 1)
            ),
            ("directory", f"{config.directory}, where {there} of them are finished" if there else str(config.directory)),
        ]
        if self.seconds is not None:
            took = f"about {human_duration(self.seconds)}{' for all of them' if there else ''}, {_at_once(self.at_once)}"
            took += ", if they were as fast as this machine's processor" if self.elsewhere else ""
            probes = ", ".join(dict.fromkeys([*config.probe, *config.watched_probes]))
            facts.append(("time", f"{took}; probes come on top: {probes}" if probes else took))
        elif config.shards > 1:
            facts.append(("time", "not measured: a step takes several processes, and a plan starts none"))
        return facts

    def _where(self) -> list[tuple[str, str]]:
        """Who trains, and what is known of their memory."""
        free, precision = f"{self.free_bytes / 1e9:.1f} GB free", self.config.precision
        used = list(dict.fromkeys(place.name for place in self.places))
        if len(used) > 1:
            first = self.places[0].processes[0].name
            free += f" on {first}, {self.at_once} segments at once on {(', ' if self.config.shards == 1 else ' and on ').join(used)}"
        if not self.elsewhere:
            return [("device", f"{self.config.device}, {free}, {precision}")]
        looked = f"{self.config.device} of each worker, {precision}; what is said of time and memory was found on this machine's processor"
        return [("workers", f"{self.config.workers}, on other machines"), ("device", looked)]

    def costs(self) -> Table:
        """What each network takes."""
        together = self.config.shards > 1
        rows = [
            (
                network.footprint.name,
                f"{network.footprint.parameters:,}",
                human_bytes(network.footprint.bytes),
                *((human_bytes(network.footprint.held), human_bytes(network.footprint.sent)) if together else ()),
                f"{network.flops:,}",
                "–" if network.step_seconds is None else f"{1000 * network.step_seconds:.2f} ms",
                str(network.segments),
                f"{network.iterations:,}",
            )
            for network in self.networks
        ]
        each = ("each has", "sends a step") if together else ()
        return Table(headings=("network", "parameters", "size", *each, "FLOPs a sample", "a step", "segments", "steps"), rows=rows)

    def memory(self) -> Table:
        """What each network needs in a process, and how far the batch could grow."""
        works = list(dict.fromkeys(work for network in self.networks for work in network.needed_bytes))
        rows = []
        for network in self.networks:
            sizes, over = network.needed_bytes, "" if network.footprint.complete else "over "
            rows.append(
                (
                    network.footprint.name,
                    *(over + human_bytes(sizes[work]) if work in sizes else "–" for work in works),
                    *(() if self.elsewhere else self._room(network)),
                )
            )
        name = "memory" if self.config.shards == 1 else "memory of each"
        return Table(headings=(name, *works, *(() if self.elsewhere else ("fits", "largest batch"))), rows=rows)

    def _room(self, network: NetworkPlan) -> tuple[str, str]:
        fits = "yes" if max(network.needed_bytes.values()) <= self.room_bytes else "no"
        return fits, _batch(network.largest_batch, self.samples["train"])

    def times(self) -> Table | None:
        """How long the run takes with one, two, four segments at once, and so on; None for one segment, or where it was not measured.

        The last number is the longest way through the tree, which no number of workers shortens.
        """
        pace = self._pace()
        if pace is None or len(self.segments) < 2:
            return None
        times = by_jobs(self.segments, pace, samples=self.samples)
        way, _ = longest_way(self.segments, pace, samples=self.samples)
        *_, most = times
        caption = (
            f"Each {self._each()}; more than {'one at once is' if most == 1 else f'{most} at once are'} of no use: the longest way is "
        )
        return Table(
            headings=("segments at once", *map(str, times)),
            rows=[
                ("time", *map(human_duration, times.values())),
                ("times as fast", *(f"{times[1] / seconds:.3g}" for seconds in times.values())),
            ],
            caption=f"{caption}{' → '.join(segment.title for segment in way)}.",
        )

    def _each(self) -> str:
        """With what each of several segments at once would take as long as was measured."""
        threads = self.config.threads or 1
        cores = "a core" if threads == 1 else f"{threads} cores"
        if self.elsewhere:
            return f"as fast as {cores} of this machine, where steps were timed; other workers take other times, GPUs above all"
        return f"with {cores if self.config.device == 'cpu' else 'a card'} of its own, as fast as here"


def _batch(largest: int | None, samples: int) -> str:
    if largest is None:
        return "not known"
    if largest >= samples:
        return "all samples"
    unit = 10 ** max(0, len(str(largest)) - 2)
    return f"about {largest // unit * unit:,}" if largest else "none"


def _how_often(config: RunConfig, name: str) -> str:
    epochs = config.watch_every if name in config.watched_probes else 1
    return "after every epoch" if epochs == 1 else f"after every {epochs} epochs"


def _at_once(jobs: int) -> str:
    return "one segment after the other" if jobs == 1 else f"{jobs} segments at once"
