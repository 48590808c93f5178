"""The summary of a run as text for a terminal."""

from __future__ import annotations

from crossdim.foundation.git_state import format_git_states
from crossdim.foundation.location import format_location
from crossdim.storage_schema.names import printable
from crossdim.training.run_dir.layout import REPORT
from crossdim.training.show.curves import count_mix
from crossdim.training.show.evaluation import group_by_probe
from crossdim.training.show.facts import RunFacts
from crossdim.training.show.findings import describe_verdict, find_warnings


def format_run(facts: RunFacts) -> str:
    """Format a run for people: its verdict, how it is doing, what it was made of."""
    lines = [str(facts.status), f"  {describe_verdict(facts)}"]
    lines += [f"  warning: {printable(warning)}" for warning in find_warnings(facts)]
    identity = facts.config.identity
    config, compute = identity["config"], identity["config"].get("compute", {})
    method = config.get("method", {}).get("kind", "unknown")
    recipe = facts.config.provenance.get("recipe")
    named = f"{recipe} (method {method})" if recipe else f"method {method}"
    lines.append(f"  {named}, {config.get('global_batch')} samples a step, seed {config.get('seed')}, {compute.get('precision')}")
    mix = ", ".join(f"{name} {number} ({share:.0%})" for name, number, share in count_mix(facts.metrics))
    newest = f" of the newest {len(facts.metrics):,} steps" if len(facts.metrics) < facts.status.step - facts.damaged else ""
    lines += [f"  samples{newest}: {mix}"] if mix else []
    code = format_git_states(facts.config.provenance.get("git", {}))
    lines += [f"  code: {printable(code)}"] if code else []
    for url, dataset in zip(facts.config.sources, identity.get("datasets", []), strict=False):
        lines.append(f"  data: {format_location(url)} ({printable(str(dataset.get('name')))})")
    for result in facts.evaluation.results if facts.evaluation else []:
        untrained = f"untrained {result.untrained:.3f} ± {result.untrained_spread:.3f}"
        lines.append(f"  probe: {printable(result.dataset)}, {printable(result.probe)}: {result.trained:.3f}, {untrained}")
    for (dataset, probe), rows in group_by_probe(facts.of_checkpoints).items():
        values = ", ".join(f"{one.result.trained:.3f} at step {one.step}" for one in rows)
        untrained = f"untrained {rows[0].result.untrained:.3f}"
        lines.append(f"  checkpoints: {printable(dataset)}, {printable(probe)}: {values}; {untrained}")
    if facts.evaluation:
        lines.append(f"  report: {format_location(facts.status.run)}/{REPORT}")
    return "\n".join(lines)
