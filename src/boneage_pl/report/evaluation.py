"""Checkpoints asked about radiographs with known ages: ask → measure → report."""

import json
import logging
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, ListConfig, OmegaConf

from boneage_pl.errors import BoneageError
from boneage_pl.machine.hardware import keep_freed_memory, on_gpu
from boneage_pl.machine.home import path_of
from boneage_pl.reading.member import View, views_of
from boneage_pl.report.against import held_against, read_answers
from boneage_pl.report.answers import CLEAN, Answers, Read, ask, mean_of
from boneage_pl.report.asked import Asked, asked_about
from boneage_pl.report.coverage import measure_coverage, measure_spread, with_ends
from boneage_pl.report.html import with_interval
from boneage_pl.report.measures import answers_table, statistics_of
from boneage_pl.report.stress import measure_stress, stress_sheet, typical
from boneage_pl.report.writer import About, Further, write_report
from boneage_pl.run.checkpoint import Checkpoint, load_checkpoint
from boneage_pl.run.run_json import evaluation_record, ran_with
from boneage_pl.run.runs import find_checkpoint, find_checkpoints, run_of, shortest

log = logging.getLogger(__name__)

QUARTERS = {"surest": "surest", "least_sure": "least sure"}


def evaluate_checkpoints(config: DictConfig) -> Path:
    """Ask the checkpoints that `ckpt` names, write the report, and return its folder.

    Raises:
        BoneageError: see `load_checkpoint`, `asked_about` and `read_answers`; a folder that is not empty.
    """
    started = datetime.now()
    if not on_gpu("auto"):
        keep_freed_memory()
    outputs = Path(config.outputs)
    views = views_of(config.views)
    names = list(config.ckpt) if isinstance(config.ckpt, ListConfig) else [config.ckpt]
    if not names:
        raise BoneageError("ckpt=[]: name at least one checkpoint.")
    checkpoints = [load_checkpoint(path) for path in find_checkpoints(names, outputs)]
    file, rival = _against(config, outputs)
    asked = asked_about(config, checkpoints, [rival] if rival else [])
    theirs = read_answers(file, asked.rows) if file else None  # what cannot be read is refused before asking
    folder = _folder(config, checkpoints[0].path, "validation" if asked.own else "all", started)

    every = [_ask(c, asked, config, views, stress=config.stress) for c in checkpoints]
    answers = _table(asked, mean_of(every), checkpoints[0])
    answers = with_ends(answers, [c.record for c in checkpoints])
    further = Further(coverage=measure_coverage(answers, own=asked.own), columns=["low", "high"])
    further.spread = measure_spread(answers)
    if len(every) > 1:
        _list_members(further, answers, [_named(c) for c in checkpoints], every)
    timings = [one.timing for one in every]
    if rival:
        other = _ask(rival, asked, config, stress=False)
        theirs, timings = other.months(), [*timings, other.timing]
    if theirs is not None:
        further.against = held_against(answers, str(file or _named(rival)), theirs)
    largest = max(asked.stores, key=lambda frame: frame.side)
    if config.stress:
        _add_stress(further, answers, asked.ways(largest), every)

    first = checkpoints[0].record
    about = About(
        title=_title(checkpoints, asked, len(views)),
        subset=asked.words,
        data=str(asked.place.root),
        checkpoints=[_named(c) for c in checkpoints],
        record=first,
        synthetic=asked.synthetic,
        chose_epoch=asked.chose_epoch,
        balanced=asked.own and first.balanced,
        run=ran_with(checkpoints[0].path),
        evaluation=evaluation_record(started, config, asked.rows, asked.images.hashes, timings),
    )
    numbers, _ = write_report(folder, about, answers, asked.stores[largest].read, further)
    (folder / "run.json").write_text(json.dumps(about.evaluation, indent=1) + "\n", encoding="utf-8")
    _tell(about.title, numbers)
    log.info("report\n  %s", folder / "report.html")
    return folder


def _against(config: DictConfig, outputs: Path) -> tuple[Path | None, Checkpoint | None]:
    """Return what `against` names: a file of answers, a checkpoint, or neither."""
    if config.against is None:
        return None, None
    path = path_of(str(config.against))
    if path.suffix.lower() == ".csv":
        return path, None
    return None, load_checkpoint(find_checkpoint(str(config.against), outputs, option="against"))


def _ask(
    checkpoint: Checkpoint, asked: Asked, config: DictConfig, views: Sequence[View] = (), *, stress: bool
) -> Answers:
    checkpoint.let_go()  # `load` reads it again, and two copies need not be held
    typed = OmegaConf.to_container(config, resolve=False)
    frame = checkpoint.record.frame
    ways = asked.ways(frame) if stress else {CLEAN: asked.stores[frame].read}
    return ask(checkpoint.path, asked.rows, ways, config.data.batch_size, typed, views)


def _list_members(further: Further, answers: pd.DataFrame, names: list[str], every: list[Answers]) -> None:
    """Add each member's statistics, and its answers as a column."""
    for number, (name, one) in enumerate(zip(names, every, strict=True), 1):
        column = f"predicted_{number}"
        answers[column] = answers["id"].map(one.months())
        alone = answers.assign(predicted=answers[column], error=answers[column] - answers["bone_age"])
        further.members.append({"name": name, **statistics_of(alone)})
        further.columns.append(column)


def _add_stress(further: Further, answers: pd.DataFrame, ways: dict[str, Read], every: list[Answers]) -> None:
    """Add the table of the stress test, all its answers, and a sheet of one hand."""
    months = {way: mean_of(every, way)["months"] for way in ways}
    further.stress = measure_stress(answers, months)
    further.figures["stress"] = stress_sheet(typical(answers, ways[CLEAN]), ways, months)
    further.tables["stress.csv"] = pd.DataFrame(months).rename_axis("id").reset_index()


def _table(asked: Asked, said: pd.DataFrame, checkpoint: Checkpoint) -> pd.DataFrame:
    """Return the answers, see `answers_table`; with a column `spread`, months, where all have one."""
    by_row = said.loc[asked.rows["id"]].reset_index(drop=True)
    edges = checkpoint.record.split["edges"]
    predicted = by_row.pop("months").to_numpy(float)
    return answers_table(asked.rows, predicted, edges, asked.images.contents, asked.seen).join(by_row)


def _named(checkpoint: Checkpoint | None) -> str:
    assert checkpoint is not None
    return str(shortest(checkpoint.path.resolve()))


def _tell(title: str, numbers: dict[str, Any]) -> None:
    mae, rows, images = with_interval(numbers["overall"]["mae"]), numbers["rows"], numbers["images"]
    log.info("%s\n  MAE %s months, 95 %% interval over images; %d rows, %d images", title, mae, rows, images)
    if numbers["natural"]:
        log.info("  %s at the source table's ages and sexes", with_interval(numbers["natural"]["mae"]))
    for beside in (*numbers["members"], *numbers["baselines"]):
        log.info("  %s %s", with_interval(beside["mae"]), beside["name"])
    if coverage := numbers["coverage"]:
        whole = coverage["parts"][0]
        named = f"{coverage['level']:.0%} intervals, {whole['width']:.1f} months wide"
        log.info("  %.1f %% of the ages are inside their %s", 100 * whole["covered"]["value"], named)
    if spread := numbers["spread"]:
        maes = [f"{with_interval(spread[part])} in its {name} quarter" for part, name in QUARTERS.items()]
        log.info("  its own spread is %.1f months on average; MAE %s", spread["mean"], ", ".join(maes))
    if against := numbers["against"]:
        difference = with_interval(against["difference"], sign="+")
        tested = "" if against["p"] is None else f", p = {against['p']:.4f}"
        log.info("  %s from that of %s, %d images%s", difference, against["name"], against["images"], tested)
    width = max((len(row["name"]) for row in numbers["stress"]), default=0)
    for row in numbers["stress"]:
        words = [with_interval(row[key]) for key in ("mae", "absolute_change")]
        log.info("  %-*s  MAE %s, the answer moves by %s", width, row["name"], *words)


def _title(checkpoints: Sequence[Checkpoint], asked: Asked, views: int) -> str:
    experiments = ", ".join(dict.fromkeys(c.record.experiment for c in checkpoints))
    several = f"the mean of {len(checkpoints)} checkpoints of " if len(checkpoints) > 1 else ""
    on = "its own validation images" if asked.own else f"all of {asked.place.root.name}"
    looked = f", each looked at in {1 + views} views" if views else ""
    return f"Bone age: {several}{experiments}, {on}{looked}"


def _folder(config: DictConfig, path: Path, subset: str, started: datetime) -> Path:
    """Return the report's folder, in which nothing lies: `out`, or a new one beside the run's own report."""
    if config.out is not None:
        folder = path_of(str(config.out))
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BoneageError(f"out={folder} holds something already, and nothing is written over.")
        return folder
    stamp = f"{subset}_{started:%Y-%m-%d_%H-%M-%S}"
    run = run_of(path)
    beside = (run / ".hydra").is_dir() and os.access(run, os.W_OK)
    folder = shortest(run / f"report_{stamp}") if beside else Path(config.outputs) / "evaluations" / stamp
    while folder.exists():  # another evaluation of this second
        folder = folder.with_name(f"{folder.name}_")
    return folder
