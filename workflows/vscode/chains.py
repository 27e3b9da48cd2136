"""What can be debugged in a project, and the chain that F5 runs for each, known before anything is started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import engines
from ..debugger.launch_json import attach_configuration
from ..deployments.definition import OnlineDeployment
from ..engines import ports
from ..engines.steps import StepEngine, StepSpec
from ..models import DebugEndpoint, ImageRef, PathMapping
from ..paths import shown
from ..pipelines.commands import published_port
from ..pipelines.definition import Pipeline
from ..runs.attachable import COMPOUND, configuration_name
from ..settings import Settings
from ..settings_table import BY_FIELD

#: Ranks of one step that get a configuration of their own.
MOST_RANKS = 16
#: Stands for a run's folder, which differs for each run.
_RUN = Path("/run-folder-of-no-run")


@dataclass(frozen=True)
class Chain:
    """One launch configuration, and the command that starts what it attaches to.

    Attributes:
        name: The launch configuration.
        argv: The command, after ``inv``.
        ending: The command that ends what it has started; empty if that ends with the session.
        mappings: Path mappings.
        wanted: The port that its command line names; None for a free one.
        family: Chains of one family have consecutive ports, as in one run of them all.
        step: The step or the experiment that it debugs; empty for a service.
        past: Whether it shows a past failure, so that no log grows.
    """

    name: str
    argv: Sequence[str]
    ending: Sequence[str]
    mappings: tuple[PathMapping, ...]
    wanted: int | None = None
    family: str = ""
    step: str = ""
    past: bool = False


@dataclass(frozen=True)
class Compound:
    """A compound, and the command that starts all of its members.

    Attributes:
        name: The compound.
        argv: The command, after ``inv``.
        members: Names of its configurations.
    """

    name: str
    argv: Sequence[str]
    members: Sequence[str]


@dataclass(frozen=True)
class ProjectChains:
    """All chains of a project.

    Attributes:
        chains: The chains.
        compounds: Those that start several of them.
        notes: What was omitted, and why.
    """

    chains: list[Chain] = field(default_factory=list)
    compounds: list[Compound] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_chains(settings: Settings, engine: str, wait: bool, snapshots: bool = False) -> ProjectChains:
    """Find everything that can be debugged in a project.

    Args:
        settings: The settings.
        engine: The engine that will run it.
        wait: Whether a service waits before score.py is loaded.
        snapshots: Whether to add chains that open snapshots of failures.

    Raises:
        UserError: pipeline.yml, a run configuration or a deployment's file cannot be read.
    """
    from ..azureml.named_assets import can_download
    from ..deployments import overlay
    from ..experiments import catalog
    from ..pipelines.reader import load_pipeline

    found = ProjectChains()
    described = overlay.apply_deployment_file(settings)
    settings = described.settings
    own_score, own_pipeline = (_is_own(settings, name) for name in ("score_script", "pipeline_file"))
    experiments = catalog.list_experiments(settings.project)
    nothing = not (own_score or own_pipeline or experiments)
    if own_score or nothing:
        found.chains.append(_deployment(settings, described.deployment, engine, wait))
    else:
        found.notes.append(_unknown(settings, "score_script", "score.py"))
    steps = engines.load_steps(engine)
    if own_pipeline or nothing:
        pipeline = load_pipeline(settings.pipeline_file, project=settings.project, fetch_data=can_download(settings))
        _pipeline(found, pipeline, settings, steps)
    else:
        found.notes.append(_unknown(settings, "pipeline_file", "pipeline.yml"))
    for name in experiments:
        _experiment(found, name, settings, steps)
    if not experiments:
        found.notes.append("there is no experiment yet: inv experiment.create NAME, then this again")
    if snapshots:
        # Behind all others, so that these keep their ports.
        found.chains.extend(_of_failures(found.chains))
    return found


def _of_failures(chains: Sequence[Chain]) -> list[Chain]:
    """A chain for each that opens the snapshot of its first failure, in any rank."""
    from ..flows.snapshots import DEPLOYMENT, configuration_name

    found: dict[str, Chain] = {}
    for chain in chains:
        story = chain.argv[0].partition(".")[0]
        argv, name = [f"{story}.attach", "--snapshot"], chain.step
        if story == "deploy":
            argv, name = ["deploy.attach-config", "--snapshot"], DEPLOYMENT
        elif story == "pipeline":
            argv += ["--step", name]
        else:
            argv += ["--run", name]
        title = configuration_name(name)
        if title in found and found[title].argv[0] != argv[0]:
            # A step and an experiment may have the same name.
            title = configuration_name(f"{name} ({story})")
        found.setdefault(title, Chain(title, argv, (), chain.mappings, past=True))
    return list(found.values())


def _is_own(settings: Settings, name: str) -> bool:
    path: Path = getattr(settings, name)
    return path.exists() and (name in settings.set_by or path.is_relative_to(settings.project))


def _unknown(settings: Settings, name: str, what: str) -> str:
    path: Path = getattr(settings, name)
    if name in settings.set_by and not path.exists():
        return f"there is no {shown(path)}, which {BY_FIELD[name].variable} names"
    return f"no {what} of this project is known: {BY_FIELD[name].variable}"


def _deployment(settings: Settings, deployment: OnlineDeployment | None, engine: str, wait: bool) -> Chain:
    from ..deployments.overlay import model_below
    from ..flows.deployment import CONFIGURATION
    from ..flows.specification import serving_of

    serving = serving_of(deployment)
    if serving is not None:
        # The files copied into the image by its Dockerfile, and the code that is mounted.
        given = {serving.code_place: str(serving.code)} if serving.code is not None else {}
        mappings = tuple(PathMapping(Path(to), at) for at, to in {**serving.copied, **given}.items())
    else:
        folder = settings.source_root
        made = engines.load(engine)
        linked = made.links(folder, settings.model_dir, settings.image_tag, model_below(deployment)).places
        root = PathMapping(folder, made.app_root(folder))
        mappings = (root, *(PathMapping(Path(to), at) for at, to in linked.items()))
    argv = ["deploy.debug", *(["--wait"] if wait else [])]
    return Chain(CONFIGURATION, argv, ["container.stop"], mappings)


def _pipeline(found: ProjectChains, pipeline: Pipeline, settings: Settings, engine: StepEngine) -> None:
    several = len(pipeline.steps) > 1
    command = ["pipeline.debug", *_typed_file(settings)]
    names = []
    for step in pipeline.steps:
        mappings = _mappings(settings, engine, step.code, step.includes)
        for rank in _ranks(found, step.name, step.ranks):
            shown = rank if step.ranks > 1 else None
            name = configuration_name(step.name if several or step.ranks > 1 else None, shown)
            which = [*(["--step", step.name] if several else []), *([] if shown is None else ["--rank", str(rank)])]
            base = published_port(step.command)
            wanted = None if base is None else base + rank
            argv = [*command, *which]
            found.chains.append(Chain(name, argv, ["pipeline.cancel"], mappings, wanted, "pipeline", step.name))
            names.append(name)
    if len(names) > 1:
        ranks = ["--rank", "all"] if any(step.ranks > 1 for step in pipeline.steps) else []
        found.compounds.append(Compound(COMPOUND, [*command, *ranks], names))


def _typed_file(settings: Settings) -> list[str]:
    """The flag for the pipeline's file, if only the command line named it."""
    if settings.set_by.get("pipeline_file") != "--pipeline-file":
        return []
    file = settings.pipeline_file
    return ["--file", str(file.relative_to(settings.project) if file.is_relative_to(settings.project) else file)]


def _experiment(found: ProjectChains, name: str, settings: Settings, engine: StepEngine) -> None:
    from ..experiments import catalog, runconfig
    from ..flows.experiment import rank_count
    from ..runs.debug_ports import experiment_configuration_name

    path = catalog.runconfig_path(settings.project, name)
    if not path.exists():
        found.notes.append(f"the experiment {name} has no script yet: inv experiment.run {name} --script train.py")
        return
    ranks = rank_count(runconfig.read(path))
    mappings = _mappings(settings, engine, settings.project)
    names = []
    for rank in _ranks(found, name, ranks):
        which = ["--rank", str(rank)] if ranks > 1 else []
        argv, ending = ["experiment.debug", *which, name], ["experiment.cancel", "--run", name]
        names.append(experiment_configuration_name(name, rank, ranks))
        found.chains.append(Chain(names[-1], argv, ending, mappings, None, name, name))
    if len(names) > 1:
        compound = f"Azure Machine Learning Experiment: {name} (all ranks)"
        found.compounds.append(Compound(compound, ["experiment.debug", "--rank", "all", name], names))


def _ranks(found: ProjectChains, name: str, ranks: int) -> range:
    if ranks > MOST_RANKS:
        found.notes.append(f"{name} has {ranks} ranks; those above {MOST_RANKS - 1} get no configuration")
    return range(min(ranks, MOST_RANKS))


def _mappings(
    settings: Settings, engine: StepEngine, code: Path | None, includes: Sequence[Path] = ()
) -> tuple[PathMapping, ...]:
    """The path mappings that are the same for every run."""
    spec = StepSpec(
        run_id="",
        step="",
        project=settings.project,
        folder=_RUN,
        image=ImageRef(engine.name, "", ""),
        code=code,
        includes=tuple(includes),
    )
    return tuple(one for one in engine.mappings(spec) if not Path(one.remote_root).is_relative_to(_RUN))


def launch_configurations(
    found: ProjectChains, known: Mapping[str, Mapping[str, Any]], first: int, project: Path
) -> Iterator[dict[str, Any]]:
    """The launch configurations, each with a port of its own.

    Args:
        found: The chains.
        known: The configurations of launch.json by name; their ports are kept.
        first: The first port to try.
        project: The folder that is open in VS Code.
    """
    taken: set[int] = set()
    last: dict[str, int] = {}
    for chain in found.chains:
        port = _port(chain, known.get(chain.name, {}), last, first, taken)
        taken.add(port)
        if chain.wanted is None:
            last[chain.family or chain.name] = port
        yield attach_configuration(chain.name, DebugEndpoint("127.0.0.1", port, chain.mappings), project)


def _port(chain: Chain, known: Mapping[str, Any], last: Mapping[str, int], first: int, taken: set[int]) -> int:
    if chain.wanted is not None:
        return chain.wanted
    if chain.family in last:
        return last[chain.family] + 1
    connect = known.get("connect")
    kept = connect.get("port") if isinstance(connect, dict) else None
    if type(kept) is int and 0 < kept < 65536 and kept not in taken:
        return kept
    port = first
    while port in taken or not ports.is_free(port):
        port = port + 1 if port < 65535 else 1024
    return port
