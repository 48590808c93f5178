"""The page of a run in one HTML file: verdict, figures, curves, pictures, events, configuration; and its card in Markdown."""

from __future__ import annotations

import json
import shlex
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.git_state import format_git_states
from crossdim.foundation.location import format_location, is_local, local_path
from crossdim.foundation.page.render import DATASET_PAGE, render_markdown, render_page
from crossdim.foundation.rates import format_seconds
from crossdim.storage_schema.names import printable
from crossdim.training.run_dir.attempts import describe_attempt
from crossdim.training.run_dir.layout import CARD, REPORT
from crossdim.training.show.curves import count_mix, draw_curves, draw_probe_curves
from crossdim.training.show.evaluation import Evaluation
from crossdim.training.show.facts import RunFacts, read_facts
from crossdim.training.show.findings import describe_verdict, find_warnings
from crossdim.training.show.step_galleries import join_steps

TEMPLATE, CARD_TEMPLATE = Path(__file__).with_name("page.html"), Path(__file__).with_name("card.md")


def build_page(facts: RunFacts) -> bytes:
    """Build the page of a run.

    Args:
        facts: what its folder tells.

    Returns:
        HTML in UTF-8.
    """
    curves = draw_curves(facts.metrics, facts.events)
    sections = [
        ("probes", "probes", facts.evaluation and facts.evaluation.results),
        ("probes of checkpoints", "checkpoints", facts.of_checkpoints),
        ("curves", "curves", curves),
        ("samples by step", "steps", facts.step_pictures),
        ("inputs and views", "pictures", facts.galleries),
        ("events", "events", True),
        ("configuration", "configuration", True),
    ]
    return render_page(
        TEMPLATE,
        sections=[(name, anchor) for name, anchor, content in sections if content],
        curves=curves,
        galleries=facts.galleries,
        of_checkpoints=facts.of_checkpoints,
        probe_curves=draw_probe_curves(facts.of_checkpoints),
        step_restorations=join_steps(facts.step_pictures, facts.status.steps, "restored"),
        step_views=join_steps(facts.step_pictures, facts.status.steps, "views"),
        events=[_describe_event(event) for event in reversed(facts.events)],
        commands="\n".join(_list_commands(facts)),
        **_describe(facts),
    )


def renew_pages(run: Bucket) -> None:
    """Write the report and the card of a run anew, if an evaluation has written them: the run has gone on since.

    Args:
        run: its folder.
    """
    if run.exists(REPORT):
        write_pages(run, read_facts(run, time.time()))


def write_pages(run: Bucket, facts: RunFacts) -> None:
    """Write the card and the report of a run.

    Args:
        run: its folder.
        facts: what it tells.
    """
    run.put(CARD, build_card(facts))
    run.put(REPORT, build_page(facts))


def build_card(facts: RunFacts) -> bytes:
    """Build the card of a model: what is recorded of a run, and what a person has to fill in.

    Args:
        facts: what its folder tells.

    Returns:
        Markdown in UTF-8.
    """
    return render_markdown(CARD_TEMPLATE, method=_find_method(facts), provenance=facts.config.provenance, **_describe(facts))


def _describe(facts: RunFacts) -> dict[str, Any]:
    """What the page and the card of a run both say."""
    evaluation, provenance = facts.evaluation or Evaluation(), facts.config.provenance
    return {
        "title": f"{provenance.get('recipe') or _find_method(facts)}, {format_location(facts.status.run)}",
        "verdict": describe_verdict(facts),
        "status": facts.status,
        "warnings": find_warnings(facts),
        "facts": _list_facts(facts),
        "results": evaluation.results,
        "baselines": evaluation.baselines,
        "reconstructions": evaluation.reconstructions,
        "notes": list(map(printable, evaluation.notes)),
        "places": list(map(format_location, evaluation.places)),
        "mix": count_mix(facts.metrics),
        "recipe": provenance.get("recipe"),
        "changed": provenance.get("changed", []),
        "config": json.dumps(facts.config.identity["config"], indent=2, sort_keys=True),
        "datasets": _list_datasets(facts),
        "attempts": list(map(describe_attempt, facts.attempts)),
    }


def _find_method(facts: RunFacts) -> str:
    return str(facts.config.identity["config"].get("method", {}).get("kind", "a run"))


def _list_facts(facts: RunFacts) -> list[tuple[str, str]]:
    """What a person wants to know of a run first; what is not known is left out."""
    config, status, provenance = facts.config.identity["config"], facts.status, facts.config.provenance
    spent = sum(record["step_s"] for record in facts.metrics)
    versions = provenance.get("versions", {})
    values = {
        "samples a step": str(config.get("global_batch")),
        "time of its steps": format_seconds(spent) if spent else None,
        "workers": None if status.workers is None else str(status.workers),
        "device": provenance.get("device"),
        "precision": config.get("compute", {}).get("precision"),
        "rate": f"{status.samples_per_s:.3g} samples/s" if status.samples_per_s else None,
        "waiting for data": f"{status.wait_share:.0%}" if status.wait_share is not None else None,
        "steps done again": str(status.in_vain),
        "time left": format_seconds(status.eta_s) if status.eta_s else None,
        "seed": str(config.get("seed")),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()) or None,
        "code": format_git_states(provenance.get("git", {})) or None,
    }
    return [(name, str(value)) for name, value in values.items() if value]


def _describe_event(event: dict[str, Any]) -> list[str]:
    time = f"{datetime.fromtimestamp(event['time_s'], UTC):%Y-%m-%d %H:%M:%S}" if event.get("time_s") else ""
    text = printable(" ".join(str(event.get("text", "")).split()))
    return [str(event["step"]), time, event["kind"], str(event.get("workers", "")), text]


def _list_datasets(facts: RunFacts) -> list[dict[str, str]]:
    identity = facts.config.identity
    datasets, weights = identity.get("datasets", []), identity.get("weights", [])
    sources = [*map(format_location, facts.config.sources), *[""] * len(datasets)]
    return [
        {
            "name": printable(str(one.get("name"))),
            "where": where,
            "page": _find_page(where),
            "weight": str(weight),
            "manifest": str(one.get("manifest")),
        }
        for one, where, weight in zip(datasets, sources, [*weights, *[""] * len(datasets)], strict=False)
    ]


def _find_page(where: str) -> str:
    """The address of a dataset's page, for a link; empty where none is on this machine."""
    if not where or not is_local(where):
        return ""
    page = Path(local_path(where)) / DATASET_PAGE
    return page.resolve().as_uri() if page.is_file() else ""


def _list_commands(facts: RunFacts) -> list[str]:
    """The command of the run, and those that come next."""
    run, data = shlex.quote(format_location(facts.status.run)), shlex.join(map(format_location, facts.config.sources))
    given = facts.config.provenance.get("command")
    commands = [printable(str(given))] if given else []
    return [*commands, f"crossdim status {run}", f"crossdim evaluate {run} --data {data}"]
