"""The command line: every verb is one flow or one query. Heavy libraries load when a verb needs them."""

import atexit
import json
import logging
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from platform_core.manifest.workspace import Workspace

app = typer.Typer(
    help="Keeps imaging models on an even keel across hospitals.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
site_app = typer.Typer(help="Hospitals: add, list, show.", no_args_is_help=True)
label_app = typer.Typer(help="Labels, keyed by the hospital's own identifiers.", no_args_is_help=True)
model_app = typer.Typer(help="Models: list, show, card, promote, roll back, export.", no_args_is_help=True)
quarantine_app = typer.Typer(help="Scans that a person must look at.", no_args_is_help=True)
sketch_app = typer.Typer(help="Statistics that leave a site without its scans.", no_args_is_help=True)
patient_app = typer.Typer(help="Corrected identities.", no_args_is_help=True)
policy_app = typer.Typer(help="What is done about which finding, as a table.", no_args_is_help=True)
decision_app = typer.Typer(help="What waits for a person: list, approve, reject.", no_args_is_help=True)
for name, sub in {
    "site": site_app,
    "label": label_app,
    "model": model_app,
    "quarantine": quarantine_app,
    "patient": patient_app,
    "sketch": sketch_app,
    "policy": policy_app,
    "decision": decision_app,
}.items():
    app.add_typer(sub, name=name)

Where = Annotated[
    str, typer.Option("--workspace", "-w", envvar="SITEDRIFT_WORKSPACE", help="The workspace; default: this folder.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


class Until(StrEnum):
    """Where a run ends."""

    quality = "quality"
    decide = "decide"


DONE, NEEDS_A_PERSON, WRONG_CALL = 0, 1, 2


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the demo's workspace is made.")] = Path("sitedrift-demo"),
    seed: Annotated[int, typer.Option(help="Of the phantom; another seed, another story.")] = 1,
    scale: Annotated[float, typer.Option(help="Cohort sizes, relative to about 200 patients per site and month.")] = 1,
) -> None:
    """Tell the whole story on a digital phantom; no server, no data, no GPU needed."""
    _set_up_prefect()
    from flows import demo as story

    story.tell(folder, seed=seed, scale=scale)


@app.command()
def init(place: Annotated[str, typer.Argument(help="A new or empty folder, or s3://bucket/prefix.")]) -> None:
    """Make a workspace with a commented sitedrift.toml and a pseudonym key of its own."""
    from platform_core.manifest.door import create_key
    from platform_core.manifest.workspace import create_workspace, require_no_workspace, workspace_name
    from platform_core.settings import Environment

    require_no_workspace(place)
    workspace = create_workspace(place, key_fingerprint=create_key(workspace_name(place)))
    typer.echo(f"Made {workspace.uri}. Its pseudonym key is in {Environment().home}: keep a copy in a safe place.")
    there = f"export SITEDRIFT_WORKSPACE={workspace.uri}" if "://" in place else f"cd {place}"
    typer.echo(f"Next: {there} && sitedrift site add NAME --source FOLDER && sitedrift run")


@site_app.command("add")
def site_add(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, '-' and '_'.")],
    source: Annotated[str, typer.Option(help="A folder, s3://bucket/prefix, or the root of a DICOMweb server.")],
    kind: Annotated[
        str, typer.Option(help="folder, s3_bucket or dicomweb (DICOM); image_folder (PNG, JPEG, NIfTI, npz).")
    ] = "folder",
    issuer: Annotated[str | None, typer.Option(help="Who issues its patient IDs, if several sites share them.")] = None,
    modality: Annotated[str | None, typer.Option(help="Modality of plain images, for example DX.")] = None,
    body_part: Annotated[str | None, typer.Option(help="Body part of plain images, for example CHEST.")] = None,
    index: Annotated[Path | None, typer.Option(help="CSV of plain images: file, patient_id, view, ...")] = None,
    quiet_s: Annotated[float, typer.Option(help="Seconds without change before a series is taken in.")] = 60.0,
    secret_env: Annotated[
        str | None, typer.Option(help="Environment variable with user:password, access key:secret key, or a token.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="S3 server other than AWS: https://host:port.")] = None,
    workspace: Where = ".",
) -> None:
    """Configure a hospital."""
    from platform_core.manifest.workspace import add_site
    from platform_core.settings import site_settings
    from platform_core.sources import SOURCES
    from platform_core.sources.contract import list_items

    here = _open(workspace)
    place = source if "://" in source else str(Path(source).resolve())
    settings = site_settings(
        source=SOURCES[kind].name,
        path=place,
        issuer=issuer,
        modality=modality,
        body_part=body_part,
        index=None if index is None else str(index.resolve()),
        quiet_s=quiet_s,
        secret_env=secret_env,
        endpoint=endpoint,
    )
    next(list_items(SOURCES[kind], settings), None)  # a place that is not there is refused now
    add_site(here, name, settings)
    typer.echo(f"Added {name}. Next: sitedrift run {name}")


@site_app.command("list")
def site_list(workspace: Where = ".", as_json: AsJson = False) -> None:
    """Every configured hospital."""
    sites = {name: site.model_dump(mode="json") for name, site in _open(workspace).sites.items()}
    _show([{"site": name, "source": s["source"], "path": s["path"]} for name, s in sites.items()], as_json)


@site_app.command("show")
def site_show(site: str, workspace: Where = ".") -> None:
    """One hospital's settings and what it runs."""
    from platform_core.manifest.serving import current_serving

    here = _open(workspace)
    servings = {t: current_serving(here, site, t) for t in here.settings.target}
    facts = {
        "settings": here.site(site).model_dump(mode="json", exclude_none=True),
        "serving": {t: json.loads(s.to_json()) for t, s in servings.items() if s is not None},
    }
    _json(facts)


@label_app.command("import")
def label_import(
    file: Annotated[Path, typer.Argument(help="CSV: series_uid, study_uid, file or series_key; value; reader, ...")],
    site: Annotated[str, typer.Option(help="The hospital whose identifiers the file uses.")],
    target: Annotated[str, typer.Option(help="The target the labels are for.")],
    value_column: Annotated[str, typer.Option(help="The column that holds the class.")] = "value",
    workspace: Where = ".",
) -> None:
    """Take in labels, of a segmentation masks (column mask_file); identifiers become keys in this process."""
    from platform_core import clock
    from platform_core.manifest.agreement import label_noise
    from platform_core.manifest.labels import import_labels
    from platform_core.manifest.masks import import_masks

    at, here = clock.now(), _open(workspace)
    here.site(site)
    run = clock.new_run(at)
    count = (
        import_masks(here, site, target, file, run=run)
        if here.target(target).task == "segmentation"
        else import_labels(here, site, target, file, value_column=value_column, run=run, at=at)
    )
    noise = label_noise(here, target, site)
    typer.echo(count.summary if noise is None else f"{count.summary}\n{noise.sentence}")
    raise typer.Exit(NEEDS_A_PERSON if count.needs_a_person else DONE)


@label_app.command("request")
def label_request(
    site: Annotated[str, typer.Argument(help="The hospital; at its door, where scans can be named.")],
    target: Annotated[str, typer.Option(help="The target that labels are asked for.")],
    n: Annotated[
        int | None, typer.Option(min=1, help="Scans that should be open; default: what a run asked for.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The list; default: worklist-SITE-TARGET.csv in this folder.")
    ] = None,
    workspace: Where = ".",
) -> None:
    """Write the list of scans that wait for a label, for whoever reads them."""
    from platform_core import clock
    from platform_core.manifest.requests import write_worklist

    here = _open(workspace)
    if n is not None:
        from platform_core.trial.label_request import request_by_hand

        at = clock.now()
        asked = request_by_hand(here, site, target, wanted=n, run=clock.new_run(at), at=at)
        typer.echo(f"{site}, period from {asked.period_start}: {asked.told}")
    written = write_worklist(here, site, target, out or Path(f"worklist-{site}-{target}.csv"))
    typer.echo(written.summary)
    raise typer.Exit(NEEDS_A_PERSON if written.n_placed < written.n_scans else DONE)


@label_app.command("list")
def label_list(
    site: Annotated[str | None, typer.Argument(help="Only this hospital.")] = None,
    workspace: Where = ".",
    as_json: AsJson = False,
) -> None:
    """Labels that were asked for, by period: how many scans, how many still wait, how many readers disagree on."""
    from platform_core.manifest.requests import request_counts

    here = _open(workspace)
    if site is not None:
        here.site(site)
    _show(request_counts(here, site), as_json)


@label_app.command("readers")
def label_readers(
    site: Annotated[str, typer.Argument(help="The hospital.")],
    target: Annotated[str, typer.Option(help="The target that was read for.")],
    workspace: Where = ".",
    as_json: AsJson = False,
) -> None:
    """How far readers agree on the series that several of them have read; readers are pseudonyms."""
    from platform_core.manifest.agreement import label_noise, reader_pairs

    here = _open(workspace)
    here.site(site)
    here.target(target)
    rows = [
        {"reader": pair.readers[0], "and": pair.readers[1], "series": pair.n, "differ": pair.n_differ,
         "kappa": None if pair.kappa is None else round(pair.kappa, 3)}
        for pair in reader_pairs(here, target, site)
    ]  # fmt: skip
    _show(rows, as_json)
    noise = label_noise(here, target, site)
    if noise is not None and not as_json:
        typer.echo(noise.sentence)


@app.command()
def run(
    sites: Annotated[list[str] | None, typer.Argument(help="Hospitals; default: all.")] = None,
    until: Annotated[Until, typer.Option(help="`quality` stops before anything is decided.")] = Until.decide,
    workspace: Where = ".",
    as_json: AsJson = False,
) -> None:
    """Ingest, check, harmonize, measure, decide and act, now, in this process."""
    here = _open(workspace)
    names = _source_first(here, sites or list(here.sites))
    if not names:
        _fail("no site is configured; add one with `sitedrift site add NAME --source FOLDER`", WRONG_CALL)
    is_any_empty = _is_any_source_empty(here, names)
    _set_up_prefect()
    from flows.start import start_run

    ended = start_run(here, names, until=until.value)
    if as_json:
        _json(ended.facts)
    else:
        typer.echo(ended.text)
    raise typer.Exit(NEEDS_A_PERSON if ended.needs_a_person or is_any_empty else DONE)


@app.command()
def train(
    target: Annotated[str, typer.Argument(help="The target to train a source model for.")],
    workspace: Where = ".",
) -> None:
    """Train the target's source model on its source site, from nothing or from its `source_weights`."""
    here = _open(workspace)
    here.target(target)
    from platform_core.learn.train import source_network

    _, weights = source_network(here, target)  # what cannot be used is refused before hours of work
    if weights:
        typer.echo(f"It starts from {weights.where}: {weights.share:.0%} of the layers match.")
    _set_up_prefect()
    from flows.start import start_training
    from platform_core.learn.registry import find

    made = find(here, start_training(here, target))
    then = "sitedrift run" if made.alias == "champion" else f"sitedrift model promote {made.name}"
    typer.echo(f"{made.name} is the {made.alias}. Next: {then}")


@app.command()
def status(workspace: Where = ".", as_json: AsJson = False) -> None:
    """The fleet at a glance."""
    from dataclasses import asdict

    from platform_core.manifest.ledger import account
    from platform_core.manifest.requests import request_counts
    from platform_core.report.fleet_rows import fleet_rows
    from platform_core.shift.newcomer import newcomer_sentences
    from platform_core.shift.watch.vigil import kept_watches, promise_of, unwatched_sentences

    here = _open(workspace)
    rows, ledger = fleet_rows(here), account(here)
    kept = {site: kept_watches(here, site) for site in here.sites}
    watches = {
        site: [*(f"{one.name}: {one.sentence}" for one in mine), *unwatched_sentences(here, site, mine)]
        for site, mine in kept.items()
    }
    new = {site: newcomer_sentences(here, site) for site in here.sites}
    asked = [row for row in request_counts(here) if row["open"]]
    if as_json:
        told: dict[str, dict[str, Any]] = {
            site: {
                "watch": watches[site],
                "onboarding": new[site],
                "labels_asked_for": [row for row in asked if row["site"] == site],
            }
            for site in here.sites
        }
        _json([asdict(row) | {"ledger": ledger.get(row.site, {})} | told.get(row.site, {}) for row in rows])
    else:
        from flows.console import print_fleet, print_ledger, print_newcomers, print_requests, print_watches

        print_fleet(rows)
        print_ledger(ledger)
        print_newcomers(new)
        print_watches(watches, promise_of(here.settings.shift, len(here.sites)))
        print_requests(asked)


@app.command()
def report(workspace: Where = ".") -> None:
    """Write the fleet page: self-contained HTML."""
    from platform_core import clock
    from platform_core.report.fleet import write_fleet_report

    here = _open(workspace)
    typer.echo(f"Wrote {here.uri}/{write_fleet_report(here, at=clock.now())}")


@app.command()
def passport(site: str, workspace: Where = ".") -> None:
    """Write a site's onboarding page: self-contained HTML."""
    from platform_core import clock
    from platform_core.report.passport import write_passport

    here = _open(workspace)
    here.site(site)
    typer.echo(f"Wrote {here.uri}/{write_passport(here, site, at=clock.now())}")


@app.command()
def receipt(
    site: Annotated[str, typer.Argument(help="A hospital that runs a model.")],
    workspace: Where = ".",
) -> None:
    """Try the recipe that a site runs, step by step, on its scans as they are now, and write the page."""
    from platform_core import clock
    from platform_core.report.receipt import write_receipt
    from platform_core.trial.onboard import try_served_recipes

    here, at = _open(workspace), clock.now()
    here.site(site)
    trials = try_served_recipes(here, site, run=clock.new_run(at), at=at)
    if not trials:
        page = write_receipt(here, site, at=at)
        seen = f"; what was tried is in {here.uri}/{page}" if page else ""
        _fail(f"{site} runs no recipe; `sitedrift run` gives it one if no step does harm{seen}", NEEDS_A_PERSON)
    for one in (step for tried in trials for step in tried.receipts):
        typer.echo(one.because)
    typer.echo(f"Wrote {here.uri}/{write_receipt(here, site, at=at)}")
    raise typer.Exit(NEEDS_A_PERSON if any(tried.refused for tried in trials) else DONE)


@quarantine_app.command("list")
def quarantine_list(workspace: Where = ".", as_json: AsJson = False) -> None:
    """What is held back, by site and reason."""
    from platform_core.manifest.ledger import held_back

    _show(held_back(_open(workspace)).to_pylist(), as_json)


@quarantine_app.command("show")
def quarantine_show(
    what: Annotated[str, typer.Argument(help="A reason code, a series_key or an arrival_key.")],
    workspace: Where = ".",
    as_json: AsJson = False,
) -> None:
    """The files that are held for a reason or under a key, what it means, and what to do."""
    from platform_core.manifest.quarantine import held_files
    from platform_core.manifest.reasons import REASONS, meaning

    by = {"reason": what} if what in REASONS else {"key": what}
    rows = held_files(_open(workspace), **by)
    if not as_json:
        for reason in sorted({str(row["reason"]) for row in rows} | ({what} & set(REASONS))):
            typer.echo(f"{reason}: {meaning(reason)}")
    _show(rows, as_json)


@quarantine_app.command("replay")
def quarantine_replay(
    site: Annotated[str, typer.Argument(help="The hospital; only at its door.")],
    reason: Annotated[str | None, typer.Option(help="Only what is held for this reason.")] = None,
    key: Annotated[str | None, typer.Option(help="Only this series_key or arrival_key.")] = None,
    workspace: Where = ".",
) -> None:
    """Let the next run decide again on what is held."""
    from platform_core.manifest.quarantine import replay

    n = replay(_open(workspace), site, reason=reason, key=key)
    typer.echo(f"{site}: {n} files will be decided on again. Next: sitedrift run {site}")


@quarantine_app.command("release")
def quarantine_release(
    site: Annotated[str, typer.Argument(help="The hospital; only at its door.")],
    key: Annotated[str, typer.Argument(help="The series_key of a series that is held for burned_in_text.")],
    because: Annotated[str, typer.Option(help="Why it may be released: what the text says.")],
    workspace: Where = ".",
) -> None:
    """Say that a person has looked: what looks like text in the pixels of a series names nobody."""
    from platform_core.manifest.quarantine import release

    n = release(_open(workspace), site, key, because=because)
    typer.echo(f"{site}: {n} files released. Next: sitedrift run {site}")


@patient_app.command("merge")
def patient_merge(
    site: Annotated[str, typer.Argument(help="The hospital that gave out the identifiers.")],
    workspace: Where = ".",
) -> None:
    """Make one patient of two identifiers, asked for on the terminal or read from stdin: wrong, then right."""
    from platform_core import clock
    from platform_core.manifest.patients import merge_patients

    here = _open(workspace)
    wrong, right = _asked("wrong identifier"), _asked("right identifier")
    at = clock.now()
    typer.echo(merge_patients(here, site, wrong, right, run=clock.new_run(at), at=at).summary)


@app.command()
def export(
    site: Annotated[str, typer.Argument(help="The hospital; only at its door.")],
    folder: Annotated[Path, typer.Argument(help="An empty folder, or that of an earlier export.")],
    series: Annotated[list[str] | None, typer.Option(help="Only these series_keys.")] = None,
    workspace: Where = ".",
) -> None:
    """Write accepted series as de-identified DICOM (PS3.15 Annex E), for sharing."""
    from platform_core.manifest.export import export_site

    count = export_site(_open(workspace), site, folder, keys=series or ())
    typer.echo(count.summary)
    raise typer.Exit(NEEDS_A_PERSON if count.n_changed + count.n_refused else DONE)


Reference = Annotated[
    str | None, typer.Option(help="model@version that the sketches are made on; default: the only one.")
]


@sketch_app.command("reference")
def sketch_reference(file: Path, reference: Reference = None, workspace: Where = ".") -> None:
    """Write what a site behind its wall needs first: the reference's edges and its own sketches."""
    from platform_core.shift.sketch.exchange import export_reference
    from platform_core.trial.sketching import known_basis

    here = _open(workspace)
    basis = known_basis(here, reference)
    file.write_bytes(export_reference(here, basis))
    typer.echo(f"Wrote {file}: {basis.reference}. Next, at the site: sitedrift sketch import {file.name}")


@sketch_app.command("export")
def sketch_export(
    site: str,
    file: Path,
    reference: Reference = None,
    at_least_patients: Annotated[int, typer.Option(help="Different patients that every cell holds, at least.")] = 10,
    workspace: Where = ".",
) -> None:
    """Write a site's sketches: sums over days of at least so many patients, and nothing else."""
    from platform_core.shift.sketch.exchange import export_sketches
    from platform_core.trial.sketching import known_basis

    here = _open(workspace)
    here.site(site)
    basis = known_basis(here, reference)
    data = export_sketches(here, site, basis=basis, at_least_patients=at_least_patients)
    file.write_bytes(data)
    typer.echo(f"Wrote {file}: {len(data) / 1e3:.0f} kB of {site} on {basis.reference}")


@sketch_app.command("import")
def sketch_import(file: Path, workspace: Where = ".") -> None:
    """Take in a reference, or the sketches of a site whose scans stay where they are."""
    from platform_core import clock
    from platform_core.shift.sketch.exchange import import_file

    what, n = import_file(_open(workspace), file.read_bytes(), run=clock.new_run(clock.now()))
    typer.echo(f"Took in {file}: {what}, {n} rows" + ("" if n else "; all of it was here"))


@sketch_app.command("compare")
def sketch_compare(
    statistic: Annotated[str, typer.Option(help="ks, psi, jensen_shannon, wasserstein or mmd.")] = "ks",
    feature: Annotated[str | None, typer.Option(help="One feature; default: the mean over all.")] = None,
    reference: Reference = None,
    workspace: Where = ".",
    as_json: AsJson = False,
) -> None:
    """Every site against every other and the reference, from sketches alone: what lies beyond chance."""
    from platform_core.trial.sketching import compare_fleet, known_basis

    here = _open(workspace)
    rows = compare_fleet(here, known_basis(here, reference), statistic=statistic, feature=feature)
    _show(rows if as_json else [row | {statistic: f"{row[statistic]:.3f}"} for row in rows], as_json)


@model_app.command("list")
def model_list(workspace: Where = ".", as_json: AsJson = False) -> None:
    """Every model version with its alias."""
    from platform_core.learn.registry import models

    columns = ("name", "alias", "strategy", "parent", "recipe", "created_at")
    rows = [model.facts for model in models(_open(workspace))]
    _show(rows if as_json else [{name: row[name] for name in columns} for row in rows], as_json)


@model_app.command("show")
def model_show(model: str, workspace: Where = ".") -> None:
    """One model version, all that is known: `lesion@1`."""
    from platform_core.learn.registry import find

    _json(find(_open(workspace), model).facts)


@model_app.command("evaluate")
def model_evaluate(model: str, workspace: Where = ".", as_json: AsJson = False) -> None:
    """How good a version is at every site and pooled, on held-out patients, with 95 % intervals: `lesion@1`."""
    from platform_core.trial.evaluation import evaluate_model

    found = evaluate_model(_open(workspace), model)
    _show([each.facts if as_json else each.told for each in found], as_json)


Because = Annotated[str, typer.Option(help="Why, without identifiers; it is recorded with the decision.")]
By = Annotated[str | None, typer.Option(help="Who says so; default: the user of this machine.")]


@model_app.command("promote")
def model_promote(model: str, because: Because = "", by: By = None, workspace: Where = ".") -> None:
    """Make a version champion by hand; the present champion becomes `former`."""
    from platform_core.trial.rollout import promote_by_hand

    _change(workspace, promote_by_hand, model, because=because, by=by)


@model_app.command("rollback")
def model_rollback(
    target: Annotated[str, typer.Argument(help="The target whose champion is taken back.")],
    site: Annotated[str | None, typer.Option(help="Only this hospital: its last recipe, calibration or model.")] = None,
    because: Because = "",
    by: By = None,
    workspace: Where = ".",
) -> None:
    """Put the former champion back, on every site; with --site, that site's serving before the present one."""
    from platform_core.trial.rollout import restore_serving, roll_back

    if site is None:
        _change(workspace, roll_back, target, because=because, by=by)
    else:
        _change(workspace, restore_serving, site, target, because=because, by=by)


@app.command()
def backtest(
    target: Annotated[str, typer.Argument(help="The target whose nights are lived through again.")],
    policy: Annotated[list[Path] | None, typer.Option(help="A table to try; twice: side by side.")] = None,
    site: Annotated[list[str] | None, typer.Option(help="Beside the source; default: all.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Days between two nights.")] = 7,
    keep: Annotated[Path | None, typer.Option(help="Keep the replays' workspaces here, scans included.")] = None,
    workspace: Where = ".",
    as_json: AsJson = False,
) -> None:
    """Replay the manifest, as it was on each day, through a policy: alarms, actions, hours, estimated risk, delay.

    Everything is done again, trainings included. With one --policy it stands beside the policy in force.

        sitedrift backtest lesion --policy bold.toml
    """
    from dataclasses import asdict

    from platform_core.policy.table import read_policy

    here = _open(workspace)
    here.target(target)
    for file in policy or []:
        read_policy(file)  # what cannot be used is refused before hours of work
    _set_up_prefect()
    from flows.backtest import replay_policies
    from flows.console import print_endings
    from platform_core import clock
    from platform_core.report.backtest import write_backtest

    tried: list[Path | None] = [None] if len(policy or []) < 2 else []
    tried += policy or []
    endings = replay_policies(here, target, tried, sites=site or [], every_days=every, keep=keep)
    page = write_backtest(here, target, endings, at=clock.now())
    if as_json:
        return _json([asdict(ending) for ending in endings])
    print_endings(endings)
    typer.echo(f"The same with a plot: {here.uri}/{page}")
    return None


@policy_app.command("show")
def policy_show(
    file: Annotated[Path | None, typer.Option(help="Another table; default: the one in force.")] = None,
    workspace: Where = ".",
    as_json: AsJson = False,
) -> None:
    """The table in force, row by row; outside a workspace the built-in one."""
    from platform_core.errors import NotAWorkspace
    from platform_core.policy.table import built_in, policy_of, read_policy

    try:
        policy = read_policy(file) if file else policy_of(_open(workspace))
    except NotAWorkspace:
        policy = built_in()
    if as_json:
        return _json([rule.facts for rule in policy.rules])
    from flows.policy import print_policy

    return print_policy(policy)


@policy_app.command("check")
def policy_check(file: Annotated[Path, typer.Argument(help="A table in TOML.")]) -> None:
    """Whether a table can be used: every fact, action and word exists, and no kind of finding is left open."""
    from platform_core.policy.table import read_policy

    policy = read_policy(file)
    typer.echo(f"{file}: {len(policy.rules)} rows, every kind of finding ends in one. Its digest is {policy.digest}.")


@decision_app.command("list")
def decision_list(workspace: Where = ".", as_json: AsJson = False) -> None:
    """What waits for a person, oldest first, and when silence counts as no."""
    from dataclasses import asdict

    from platform_core.policy.approvals import waiting_decisions

    waiting = waiting_decisions(_open(workspace))
    if as_json:
        return _json([asdict(one) for one in waiting])
    from flows.policy import print_waiting

    return print_waiting(waiting)


Key = Annotated[str, typer.Argument(help="The decision's key, or enough of its beginning.")]
Note = Annotated[str | None, typer.Option(help="Why, in a few words without identifiers.")]


@decision_app.command("approve")
def decision_approve(key: Key, by: By = None, note: Note = None, workspace: Where = ".") -> None:
    """Say yes: the next run carries the action out, once, if the finding still asks for it; a hold is lifted."""
    _answer(workspace, key, by, note, is_approved=True)


@decision_app.command("reject")
def decision_reject(key: Key, by: By = None, note: Note = None, workspace: Where = ".") -> None:
    """Say no: the action is dropped for this period; a hold stays."""
    _answer(workspace, key, by, note, is_approved=False)


@model_app.command("card")
def model_card(
    model: Annotated[str, typer.Argument(help="lesion@7")],
    html: Annotated[Path | None, typer.Option(help="Also write the page to this file.")] = None,
    workspace: Where = ".",
) -> None:
    """Print a version's model card as Markdown, and write it as a page under reports/."""
    from platform_core import clock
    from platform_core.report.card import card_html, card_markdown, write_card

    here, at = _open(workspace), clock.now()
    typer.echo(card_markdown(here, model))
    typer.secho(f"Wrote {here.uri}/{write_card(here, model, at=at)}", err=True)
    if html is not None:
        html.write_text(card_html(here, model, at=at), encoding="utf-8")
        typer.secho(f"Wrote {html}", err=True)


@model_app.command("evidence")
def model_evidence(
    model: Annotated[str, typer.Argument(help="lesion@7")], workspace: Where = ".", as_json: AsJson = False
) -> None:
    """What changed with a version, on which data, by which protocol, with which results, and who approved."""
    from platform_core import clock
    from platform_core.trial.change_control import as_markdown, change_control

    facts = change_control(_open(workspace), model, at=clock.now())
    return _json(facts) if as_json else typer.echo(as_markdown(facts))


@model_app.command("export")
def model_export(
    model: Annotated[str, typer.Argument(help="lesion@7")],
    file: Annotated[Path, typer.Argument(help="The zip to write; there must be none yet.")],
    site: Annotated[str | None, typer.Option(help="Take this hospital's recipe and calibration along.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also the network as ONNX.")] = False,
    workspace: Where = ".",
) -> None:
    """Write a version as a MONAI bundle in a zip: weights, inference, card and evidence; no scan's or patient's key."""
    from platform_core.learn.export import export_model
    from platform_core.report.card import card_markdown
    from platform_core.trial.change_control import kept_change_control

    here = _open(workspace)
    documents = {"docs/README.md": card_markdown(here, model).encode(), **kept_change_control(here, model)}
    done = export_model(here, model, file, site=site, documents=documents, onnx=onnx)
    typer.echo(f"Wrote {done.file}: {len(done.paths)} files, {done.n_bytes / 1e6:.1f} MB, sha256 {done.sha256}")


@app.command()
def why(
    thing: Annotated[
        str, typer.Argument(help="lesion@7, a finding or decision key, north/lesion, a recipe, a series.")
    ],
    everything: Annotated[bool, typer.Option("--all", help="All of every list, however long.")] = False,
    workspace: Where = ".",
    as_json: AsJson = False,
) -> None:
    """What a model, a number or a decision was made from: scans by hash, recipe, code, decisions, approvals."""
    from dataclasses import asdict

    from platform_core.lineage.why import FEW, told
    from platform_core.lineage.why import why as find

    found = find(_open(workspace), thing, few=None if everything else FEW)
    if as_json:
        return _json(asdict(found))
    for line in told(found):
        typer.echo(line)
    return None


@app.command()
def withdraw(
    site: Annotated[str, typer.Argument(help="The hospital that gave out the identifier; at its door.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask again before anything is removed.")] = False,
    workspace: Where = ".",
    as_json: AsJson = False,
) -> None:
    """Take a patient out of everything; the identifier is asked for on the terminal or read from stdin."""
    from dataclasses import asdict

    from flows.lineage import ended, planned
    from platform_core import clock
    from platform_core.lineage.journal import held_plans
    from platform_core.lineage.plan import plan_withdrawal
    from platform_core.lineage.withdraw import withdraw as carry_out

    here, at = _open(workspace), clock.now()
    here.site(site)
    held = held_plans(here)
    for plan in held:
        typer.secho(f"An earlier withdrawal, begun at {plan.began_at}, is finished first.", err=True)
        for line in ended(carry_out(here, plan, at=at)):
            typer.secho(line, err=True)
    plan = plan_withdrawal(here, site, _asked("patient identifier"), run=clock.new_run(at), at=at)
    for line in planned(plan):
        typer.secho(line, err=as_json)
    if not yes:
        typer.confirm("Remove all of it, for ever?", abort=True, err=True)
    done = carry_out(here, plan, at=clock.now())
    if as_json:
        _json(asdict(done))
    else:
        typer.echo("\n".join(ended(done)))
    raise typer.Exit(NEEDS_A_PERSON if done.traces or done.elsewhere or done.models else DONE)


@app.command()
def query(sql: str, workspace: Where = ".", as_json: AsJson = False) -> None:
    """Ask DuckDB over every table: `sitedrift query "select * from out__finding"`."""
    with _open(workspace).lake.connect() as db:
        try:
            table = db.sql(sql).to_arrow_table()
        except Exception as error:  # noqa: BLE001 - whatever DuckDB finds wrong is the caller's to mend
            _fail(f"query: {error}", WRONG_CALL)
    _show(table.to_pylist(), as_json)


@app.command()
def doctor(
    workspace: Where = ".",
    fix: Annotated[bool, typer.Option("--fix", help="Remove what broken runs left behind.")] = False,
) -> None:
    """What is wrong with this installation and workspace, and what to do."""
    from flows.doctor import examine, tidy

    if fix:
        typer.echo(tidy(workspace))
    problems = examine(workspace)
    for line in problems or ["Nothing is wrong."]:
        typer.echo(line)
    raise typer.Exit(WRONG_CALL if problems else DONE)


def main() -> NoReturn:
    """Run the command line; a deliberate error becomes one line and an exit code, never a stack trace."""
    from platform_core.errors import BadRequest, PlatformError

    code: Any = DONE
    try:
        app()
    except SystemExit as ended:
        code = ended.code
    except BadRequest as error:
        code = _tell(str(error), WRONG_CALL)
    except PlatformError as error:
        code = _tell(str(error), NEEDS_A_PERSON)
    except Exception as error:
        if os.environ.get("SITEDRIFT_DEBUG"):
            raise
        code = _tell(
            f"unexpected {type(error).__name__}; SITEDRIFT_DEBUG=1 shows where. Please report it.", NEEDS_A_PERSON
        )
    except KeyboardInterrupt:
        code = _tell("interrupted; run again to go on where it stopped", NEEDS_A_PERSON)
    _leave(code)


def _leave(code: Any) -> NoReturn:
    """End the process; after Prefect without the interpreter's teardown.

    Prefect's threads outlive the last flow, and DuckDB then prints pages about objects that they keep alive.
    """
    if "prefect" in sys.modules and isinstance(code, int):
        atexit._run_exitfuncs()  # noqa: SLF001 - Prefect stops its own server here
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _asked(what: str) -> str:
    """One line from the terminal, unseen, or from stdin; never an argument, which others on the machine can read."""
    from getpass import getpass

    typed = getpass(f"{what}: ") if sys.stdin.isatty() else sys.stdin.readline()
    return typed.strip() or _fail(f"no {what} was given", WRONG_CALL)


def _open(uri: str) -> "Workspace":
    from platform_core.manifest.workspace import open_workspace

    return open_workspace(uri)


def _source_first(workspace: "Workspace", names: list[str]) -> list[str]:
    """The named sites, known ones only, the source sites of targets first: others are compared with them."""
    for name in names:
        workspace.site(name)
    sources = {target.source_site for target in workspace.settings.target.values()}
    return sorted(names, key=lambda name: (name not in sources, name))


def _is_any_source_empty(workspace: "Workspace", names: list[str]) -> bool:
    """Tell of every source without a file; one that cannot be listed is left to the run, which goes on with the others.

    Raises:
        PlatformError: If the only source cannot be listed.
    """
    from platform_core.errors import PlatformError
    from platform_core.sources import SOURCES
    from platform_core.sources.contract import list_items

    is_any_empty = False
    for name in names:
        settings = workspace.site(name)
        try:
            first = next(list_items(SOURCES[settings.source], settings), None)
        except PlatformError:
            if len(names) == 1:
                raise
            continue
        if first is None:
            typer.secho(f"{name}: expected scans in {settings.path}, found none; is the path right?", err=True)
            is_any_empty = True
    return is_any_empty


def _change(workspace: str, change: Callable[..., str], *names: str, because: str, by: str | None) -> None:
    """Change what sites run, now and by hand, and say what it came to."""
    from platform_core import clock

    at, by = clock.now(), by or _this_user()
    typer.echo(change(_open(workspace), *names, run=clock.new_run(at), at=at, because=because, by=by))


def _answer(workspace: str, key: str, by: str | None, note: str | None, *, is_approved: bool) -> None:
    """Write a person's answer to a decision that waits, and say what comes next."""
    from platform_core import clock
    from platform_core.policy.approvals import answer_decision

    at, by = clock.now(), by or _this_user()
    here = _open(workspace)
    typer.echo(answer_decision(here, key, is_approved=is_approved, by=by, note=note, run=clock.new_run(at), at=at))


def _this_user() -> str:
    """The name of the user; in a container a user may have a number only."""
    from getpass import getuser

    from platform_core.errors import BadRequest

    try:
        return getuser()
    except (KeyError, OSError, ImportError) as error:
        raise BadRequest("this user has no name here; say who you are: --by NAME") from error


def _set_up_prefect() -> None:
    """Quiet defaults that any environment variable overrides; without PREFECT_API_URL flows run in this process."""
    defaults = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # of 20 a busy machine needs more
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "sitedrift",
        "PREFECT_LOGGING_TO_API_ENABLED": "true" if os.environ.get("PREFECT_API_URL") else "false",
        "GX_ANALYTICS_ENABLED": "false",
    }
    for variable, value in defaults.items():
        os.environ.setdefault(variable, value)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("sitedrift")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.info(
        "starting Prefect in this process ..." if not os.environ.get("PREFECT_API_URL") else "using the Prefect server"
    )


def _fail(message: str, code: int) -> NoReturn:
    raise SystemExit(_tell(message, code))


def _tell(message: str, code: int) -> int:
    typer.secho(f"error: {message}", err=True, fg="red")
    return code


def _json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:  # noqa: FBT001
    """Rows as a table for a person, or as JSON for a program."""
    if as_json:
        return _json(rows)
    from rich.console import Console
    from rich.table import Table

    table = Table(*(rows[0] if rows else ["nothing"]))
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    return Console().print(table)


if __name__ == "__main__":
    main()
