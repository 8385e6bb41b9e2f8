"""The tables of a workspace: their grain, columns, types and units.

These columns are a promise to users and to programs; a room may add more to its own rows
(`core__feature` gets one column per feature). The description of a column is its metadata.
"""

import pyarrow as pa

from platform_core import layout

TEXT, WHOLE, REAL, YES_NO = pa.string(), pa.int64(), pa.float64(), pa.bool_()
MOMENT, DAY = pa.timestamp("us", tz="UTC"), pa.date32()


def _table(grain: str, *columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    fields = [pa.field(name, kind, metadata={"description": text}) for name, kind, text in columns]
    return pa.schema(fields, metadata={"grain": grain})


SITE = ("site", TEXT, "the hospital; partition")
SERIES_KEY = ("series_key", TEXT, "pseudonym of (site, SeriesInstanceUID, part)")
REVISION = ("revision", WHOLE, "1, 2, ... as late or corrected files arrive")
RECIPE = ("recipe", TEXT, "`native`, or the name and hash of a fitted recipe")
STRATUM = ("stratum", TEXT, "modality/body part/contrast or sequence/kernel class; never mixed in one test")
OBSERVED_ON = ("observed_on", DAY, "acquired_on, else the day of arrival; moved by the site's secret offset")
RUN = ("run", TEXT, "the run that wrote the row")

ARRIVAL = _table(
    "one file or object that came",
    SITE,
    ("arrival_key", TEXT, "pseudonym of (site, address, content)"),
    RUN,
    ("arrived_at", MOMENT, "when the run saw it"),
    ("n_bytes", WHOLE, "size"),
    ("content_sha256", TEXT, "keyed hash of the bytes"),
    ("outcome", TEXT, "accepted, duplicate, quarantined, waiting or ignored"),
    ("reason", TEXT, "short stable code; null when accepted"),
    ("detail", TEXT, "for the person on call; never an identifier"),
    SERIES_KEY,
)

SERIES = _table(
    "one part of one series, one revision",
    SITE,
    SERIES_KEY,
    REVISION,
    ("part", WHOLE, "0, 1, ... within the series"),
    ("n_parts", WHOLE, "volumes that the series holds"),
    ("study_key", TEXT, "pseudonym of the study"),
    ("patient_key", TEXT, "pseudonym of (issuer or site, PatientID)"),
    ("patient_known", YES_NO, "false: image-level, never evidence at a gate"),
    ("modality", TEXT, "CT, MR, CR, DX, ..."),
    ("manufacturer", TEXT, ""),
    ("scanner_model", TEXT, ""),
    ("software", TEXT, ""),
    ("kernel", TEXT, "convolution kernel (CT)"),
    ("kvp", REAL, "kV"),
    ("exposure_mas", REAL, "mAs, of the first slice: CT follows the patient with its tube current"),
    ("repetition_time_ms", REAL, "ms"),
    ("echo_time_ms", REAL, "ms"),
    ("flip_angle_deg", REAL, "degrees"),
    ("field_strength_t", REAL, "T"),
    ("pixel_bandwidth_hz", REAL, "Hz per pixel (MR)"),
    ("slice_thickness_mm", REAL, "mm as the header states it, which may differ from the spacing"),
    ("body_part", TEXT, ""),
    ("view", TEXT, "AP, PA, ... of a projection"),
    STRATUM,
    ("n_x", WHOLE, "voxels"),
    ("n_y", WHOLE, "voxels"),
    ("n_z", WHOLE, "voxels"),
    ("n_t", WHOLE, "time points"),
    ("spacing_x_mm", REAL, "mm; null for plain images"),
    ("spacing_y_mm", REAL, "mm"),
    ("spacing_z_mm", REAL, "mm"),
    ("orientation", TEXT, "nearest anatomical axes of x, y, z, e.g. LPS; null for plain images"),
    ("transfer_syntax", TEXT, "UID, or the image format"),
    ("geometry", TEXT, "regular, plain, or why not"),
    ("acquired_on", DAY, "moved by the site's secret offset; null if not stated"),
    OBSERVED_ON,
    ("n_files", WHOLE, "files it came in"),
    ("volume_uri", TEXT, "relative to the workspace; null if quarantined"),
    ("volume_sha256", TEXT, "hash of voxels and geometry"),
    ("voxels_sha256", TEXT, "hash of voxels alone; null for a blank image: the same pixels under two names share it"),
    ("ingested_at", MOMENT, ""),
    RUN,
)

PATIENT_MERGE = _table(
    "one patient key that a corrected identity put under another",
    SITE,
    ("patient_key", TEXT, "as `core__series` was written with"),
    ("kept_key", TEXT, "the key that every reader sees instead; never itself put under another"),
    ("epoch", WHOLE, "0, 1, ... one per merge; of the rows of a patient_key the last counts"),
    ("merged_at", MOMENT, ""),
    RUN,
)

WITHDRAWN = _table(
    "one patient key whose scans are never taken in again",
    ("tombstone", TEXT, "pseudonym of the patient key: equal keys have equal tombstones, and no key can be had back"),
    ("withdrawn_at", MOMENT, ""),
    RUN,
)

STAGE = _table(
    "one series at one stage",
    SITE,
    SERIES_KEY,
    REVISION,
    ("stage", TEXT, "ingest, unique, quality, feature, harmonize, predict or sketch"),
    RECIPE,
    ("model", TEXT, "model@version where the stage has one"),
    ("outcome", TEXT, "done or refused"),
    ("reason", TEXT, "short stable code; null when done"),
    RUN,
)

LABEL = _table(
    "one reading of one series",
    SITE,
    ("target", TEXT, ""),
    SERIES_KEY,
    ("value", TEXT, "the class as spelt in the target; of a mask the class that it shows"),
    ("mask_uri", TEXT, "a mask, 0 and 1, on the grid of the series as it came; null for a class"),
    ("guideline", TEXT, "what it was read by"),
    ("reader", TEXT, "pseudonym"),
    ("labelled_on", DAY, "moved by the site's secret offset"),
    ("sampling_probability", REAL, "chance with which the scan was chosen to be read; 1 if all were; null: not stated"),
    ("superseded_by", TEXT, "run whose label replaces it; null for the label in force"),
    RUN,
)

FITTED_RECIPE = _table(
    "one recipe with its learned parameters",
    SITE,
    ("target", TEXT, ""),
    RECIPE,
    ("steps", TEXT, "JSON: harmonizers, settings, learned parameters"),
    ("fitted_on", TEXT, "hash of the series it was fitted on"),
    ("n_fitted", WHOLE, "series it was fitted on"),
    ("created_at", MOMENT, ""),
    RUN,
)

VOLUME = _table(
    "one series by one recipe",
    SITE,
    SERIES_KEY,
    REVISION,
    RECIPE,
    ("volume_uri", TEXT, "relative to the workspace"),
    ("volume_sha256", TEXT, "hash of voxels and geometry"),
    ("skipped", TEXT, "steps that did not apply, each with its reason, e.g. resample:needs_spacing; null if none"),
    RUN,
)

FEATURE = _table(
    "one series by one recipe; more columns: one per feature, its unit in the name",
    SITE,
    SERIES_KEY,
    REVISION,
    RECIPE,
    STRATUM,
    OBSERVED_ON,
    RUN,
)

PREDICTION = _table(
    "one series, recipe and model",
    SITE,
    SERIES_KEY,
    REVISION,
    RECIPE,
    ("model", TEXT, "model@version"),
    ("target", TEXT, ""),
    ("score", REAL, "logit of the positive class before calibration"),
    ("probability", pa.list_(REAL), "one per class, before calibration"),
    ("embedding", pa.list_(pa.float32()), "penultimate layer"),
    RUN,
)

TRANSPORTED = _table(
    "one labelled scan of the reference, shown as a site's scanner would have made it; more columns: one per feature",
    SITE,
    STRATUM,
    ("period_start", DAY, "first day of the site's period that was learned from"),
    ("target", TEXT, ""),
    ("model", TEXT, "model@version that scored it"),
    ("recipe", TEXT, "the site's recipe, whose steps it went through"),
    ("transport", TEXT, "hash of all that it was made from: the site's sample, the reference's, recipes, settings"),
    ("n_site", WHOLE, "patients of the site's period that were there to learn from"),
    ("blur_mm2", REAL, "in-plane variance of the site's point spread less the reference's, mm^2"),
    ("blur_se_mm2", REAL, "its standard error over patients, mm^2"),
    ("worst", REAL, "ln of noise power shown over the site's, the largest by size; from .3 on scores are not trusted"),
    ("reference_site", TEXT, "where the scan was made"),
    ("series_key", TEXT, "of the reference; null in the one row of a transport that could not be learned"),
    REVISION,
    ("y", REAL, "1 positive, 0 negative"),
    ("score", REAL, "logit of the positive class before calibration"),
    ("reason", TEXT, "why it could not be shown, a short stable code; null where it was"),
    RUN,
)

RANK = _table(
    "one series, reference and feature: a patient-day, or a day, among all before it; written once, never changed",
    SITE,
    SERIES_KEY,
    REVISION,
    STRATUM,
    RECIPE,
    ("reference", TEXT, "name of the frozen sample whose rows are the first of the pool"),
    ("feature", TEXT, "a feature, or `score`"),
    OBSERVED_ON,
    ("unit", TEXT, "patient_day, or day: the lower median of n_values patient-days, where days differ too much"),
    ("n_values", WHOLE, "patient-days behind the value"),
    (
        "sequence",
        WHOLE,
        "0, 1, ... per site, stratum, recipe, reference, feature as they came; < 0: the reference; null: sets the grid",
    ),
    ("batch", WHOLE, "0, 1, ... per scope: the call that ranked it; -1: the reference"),
    (
        "grid",
        REAL,
        "values are multiples of it: 256 to 512 within the spread of a few rows that set it and were left out",
    ),
    ("value", REAL, "in the unit of the feature, on the grid"),
    ("tie_break", REAL, "(0, 1), hash of series, feature and reference; null for the reference"),
    ("rank", REAL, "(0, 1), uniform and independent while nothing changes; null for the reference"),
    RUN,
)

POOL = _table(
    "all that one feature was ranked among up to a batch, counted; can be made again from core__rank",
    SITE,
    STRATUM,
    RECIPE,
    ("reference", TEXT, "as in core__rank"),
    ("feature", TEXT, "as in core__rank"),
    ("batch", WHOLE, "the last batch that is counted"),
    ("n_reference", WHOLE, "rows of the reference in it"),
    ("value", pa.list_(REAL), "each value once, ascending"),
    ("n", pa.list_(WHOLE), "how many rows have it"),
    RUN,
)

QUALITY = _table(
    "one rule on one batch or series",
    SITE,
    RUN,
    ("rule", TEXT, ""),
    ("severity", TEXT, "error, warn or info"),
    SERIES_KEY,
    ("passed", YES_NO, ""),
    ("observed", TEXT, "what was found"),
    ("because", TEXT, "why the rule exists"),
)

SHIFT = _table(
    "one statistic on one feature, site, stratum and period",
    SITE,
    STRATUM,
    ("period_start", DAY, ""),
    ("period_end", DAY, "last day, inclusive"),
    RECIPE,
    ("reference", TEXT, "model@version, or site@period for the site's accepted state"),
    ("feature", TEXT, "a feature, `score`, `embedding`, or `all` of them together"),
    ("statistic", TEXT, ""),
    ("value", REAL, ""),
    ("low", REAL, "95 % interval; null if none is known"),
    ("high", REAL, ""),
    ("evidence", REAL, "p-value; null for a pure distance"),
    ("n_current", WHOLE, "patients"),
    ("n_reference", WHOLE, "patients"),
    RUN,
)

_INTERVALS = [
    (f"{term}{end}", REAL, "" if end else f"{term.replace('_', ' ')}; null if not estimable")
    for term in ("source_risk", "divergence", "joint_risk", "target_risk", "expected_risk")
    for end in ("", "_low", "_high")
]

FINDING = _table(
    "one site, stratum and period",
    SITE,
    ("finding_key", TEXT, "hash of what it was made from"),
    STRATUM,
    ("target", TEXT, ""),
    ("model", TEXT, "model@version"),
    ("period_start", DAY, ""),
    ("period_end", DAY, ""),
    ("reference", TEXT, "what the site was compared with"),
    ("kind", TEXT, "none, covariate_acquisition, covariate_case_mix, label, concept, mixed or undetermined"),
    ("size", REAL, "covariate: Kolmogorov-Smirnov distance; label, mixed: change of prevalence; concept: of positives"),
    ("low", REAL, "95 % interval"),
    ("high", REAL, ""),
    ("n_needed", WHOLE, "scans or labels needed for a verdict; null if there is one"),
    ("explained_by", TEXT, "one sentence"),
    *_INTERVALS,
    RUN,
)

ALARM = _table(
    "one alarm of a watch, written by the first night that saw it; a watch alarms once",
    SITE,
    ("alarm_key", TEXT, ""),
    STRATUM,
    RECIPE,
    ("reference", TEXT, "as in core__rank: what the site was watched against"),
    ("alarmed_on", DAY, "day of the rank that raised it"),
    ("changed_on", DAY, "about when the change began"),
    ("period_start", DAY, "first day of the period that it begins: changed_on, or that of a period a few days before"),
    ("feature", TEXT, "that passed the threshold first"),
    ("meaning", TEXT, "what its values do since then: higher, lower, more or less spread out, skewed"),
    ("log_e", REAL, "natural logarithm of its e-value"),
    ("threshold", REAL, "e-value that raised it"),
    ("sentence", TEXT, "for the person on call"),
    ("raised_at", MOMENT, ""),
    RUN,
)

EPISODE = _table(
    "one change of state of one alarm",
    SITE,
    ("episode_key", TEXT, ""),
    ("finding_key", TEXT, ""),
    ("alarm_key", TEXT, "of the watch's alarm that opened or joined it; null where a finding alone did"),
    ("state", TEXT, "opened, acted, watching or closed"),
    ("opened_at", MOMENT, ""),
    ("closed_at", MOMENT, ""),
    RUN,
)

DECISION = _table(
    "one decision, or its change of status",
    SITE,
    ("decision_key", TEXT, ""),
    ("decided_at", MOMENT, ""),
    ("step", WHOLE, "0, 1, ... of the decisions about one finding, which one run makes at one moment"),
    ("finding_key", TEXT, ""),
    ("target", TEXT, ""),
    (
        "action",
        TEXT,
        "none, request_labels, hold, reharmonize, recalibrate, calibrate, adapt or fine_tune; by hand: promote, ...",
    ),
    ("strategy", TEXT, "of a fine-tuning"),
    ("because", TEXT, "one sentence with the numbers"),
    (
        "status",
        TEXT,
        (
            "in the order in which a decision may go on: waiting (for a person), approved or rejected (by a person, or "
            "by nobody in time), proposed (begun and not ended), shadow (beside the champion), passed (sites follow), "
            "refused (by a gate), done"
        ),
    ),
    ("rule", TEXT, "the row of the policy that decided; null in rows of before there was a table"),
    ("approved_by", TEXT, "policy, or the person who approved or rejected it"),
    ("serving_before", TEXT, "JSON"),
    ("serving_after", TEXT, "JSON; null if nothing changed"),
    ("evidence", TEXT, "JSON: what was measured before and after; policy: digest of the table; note, approval"),
    RUN,
)

REQUEST = _table(
    "one patient who could be asked for a label, in one drawing; of the rows of a series the last counts",
    SITE,
    ("request_key", TEXT, "hash of the finding and of how many labels were wanted"),
    ("target", TEXT, ""),
    ("finding_key", TEXT, "null where a person asked before there was a finding"),
    STRATUM,
    ("period_start", DAY, "of the period whose patients are drawn from"),
    SERIES_KEY,
    ("patient_key", TEXT, "pseudonym of (issuer or site, PatientID)"),
    ("random_number", REAL, "(0, 1), the patient's own for good: drawn where it is below the chance"),
    ("drawn", TEXT, "uniform or informed: how the patient was drawn at first; null: not drawn so far"),
    ("sampling_probability", REAL, "chance of having been drawn by now, (0, 1]; it only grows"),
    ("requested_at", MOMENT, ""),
    RUN,
)

RACE = _table(
    "one candidate of one race of strategies at one site",
    SITE,
    ("race_key", TEXT, "hash of the network, the scans and labels, the candidates and the settings"),
    ("finding_key", TEXT, "that the fine-tuning is about"),
    ("target", TEXT, ""),
    RECIPE,
    ("parent", TEXT, "model@version that every candidate started from"),
    ("strategy", TEXT, "`none`: no weight moves, the calibration is fitted again"),
    ("step", WHOLE, "0, 1, ... the cheapest first; `none` is 0"),
    ("outcome", TEXT, "won, lost or not_run"),
    ("because", TEXT, "one sentence with the numbers"),
    ("n_patients", WHOLE, "of the site, each held out once"),
    ("n_scans", WHOLE, "of those patients"),
    ("n_folds", WHOLE, ""),
    ("log_loss", REAL, "nats per scan, cross-validated, at the site's own prevalence; lower is better"),
    ("log_loss_low", REAL, "of its 95 % interval over patients"),
    ("log_loss_high", REAL, ""),
    ("gain", REAL, "log_loss of `none` less this one, on the same patients, nats per scan; above 0 is better"),
    ("gain_low", REAL, "of its 95 % interval over patients"),
    ("gain_high", REAL, ""),
    ("n_seeds", WHOLE, "of the winner: seeds that it was trained with"),
    ("seed_gain", REAL, "of the winner: mean gain over the seeds, nats per scan"),
    ("seed_sd", REAL, "of the winner: standard deviation of the gain over the seeds"),
    ("seconds", REAL, "all folds and seeds"),
    ("n_scan_passes", REAL, "forward and backward passes of one scan through the whole network, all folds and seeds"),
    ("device", TEXT, "cpu, or the name of the GPU"),
    ("curve", pa.list_(REAL), "mean training loss of each epoch over the folds, nats"),
    RUN,
)

MODEL = _table(
    "one event of one model version: made, or given an alias",
    ("model", TEXT, "the target it serves"),
    ("version", WHOLE, ""),
    ("alias", TEXT, "champion, challenger, shadow, adapted, former or refused"),
    ("parent", TEXT, "model@version it was trained from"),
    ("strategy", TEXT, ""),
    ("reference", TEXT, "hash of the frozen list of series it was trained on"),
    RECIPE,
    ("metrics", TEXT, "JSON: metrics per site"),
    ("calibration", TEXT, "JSON: what a site's first serving of it assumes"),
    ("bundle_uri", TEXT, "relative to the workspace"),
    ("created_at", MOMENT, "when the version was made"),
    ("since", MOMENT, "when it was given the alias"),
    ("epoch", WHOLE, "0, 1, ... per model, one per event; compare-and-swap"),
    ("training", TEXT, "JSON: seconds, device, n_scan_passes, race_key; null of a version older than the column"),
    RUN,
)

SERVING = _table(
    "what one site runs for one target from one moment on",
    SITE,
    ("target", TEXT, ""),
    ("since", MOMENT, ""),
    ("epoch", WHOLE, "0, 1, ... per site and target; compare-and-swap"),
    ("model", TEXT, "model@version"),
    RECIPE,
    ("calibration", TEXT, "JSON: logit_offset, prevalence, threshold, scale"),
    ("until", MOMENT, "when it ends by itself; null: never, and in rows from before this column"),
    ("decision_key", TEXT, "null for the first"),
    RUN,
)

REFERENCE = _table(
    "one feature of one reference, recipe and stratum: how it is binned or mapped, and the reference's own sketch",
    ("reference", TEXT, "model@version, or site@period for the site's accepted state"),
    RECIPE,
    STRATUM,
    ("feature", TEXT, "as in `out__sketch`"),
    ("kind", TEXT, "as in `out__sketch`"),
    ("edges", pa.list_(REAL), "of a histogram: increasing, in the feature's unit; a bin ends with its edge"),
    (
        "map",
        pa.list_(REAL),
        "of moments: centre, then whitening rows; of fourier: length, trace, trace of squares, top",
    ),
    ("members", pa.list_(TEXT), "of moments of `features`: the features in order; null for other rows"),
    ("n", WHOLE, "patient-days"),
    ("sum", REAL, "of a histogram's values, in the feature's unit"),
    ("sum_squares", REAL, ""),
    ("sketch", pa.list_(REAL), "as in `out__sketch`"),
    RUN,
)

SKETCH = _table(
    "what one write adds to one site, stratum, day, recipe, reference and feature; the sum over rows is the sketch",
    SITE,
    STRATUM,
    ("day", DAY, "observed_on, or the first of the days that a site behind its wall has merged"),
    ("last_day", DAY, "day, or the last of the merged days"),
    RECIPE,
    ("reference", TEXT, "whose edges and maps it is on"),
    ("feature", TEXT, "a feature, `score`, `label`, `embedding` or `features`; the last two also with `_fourier`"),
    ("kind", TEXT, "histogram, labels, moments or fourier: how `sketch` is read"),
    ("n", WHOLE, "patient-days; below 0 where a correction takes some away"),
    ("sum", REAL, "of a histogram's values, in the feature's unit; null for other kinds"),
    ("sum_squares", REAL, ""),
    ("sketch", pa.list_(REAL), "counts per bin (below and above the edges included), counts per class, or sums"),
    ("entry", WHOLE, "0, 1, ... per site, recipe and reference, one per write; compare-and-swap"),
    RUN,
)

WITHDRAWAL = _table(
    "one withdrawal that has ended; it names nobody",
    ("sites", pa.list_(TEXT), "where the patient was seen"),
    ("began_at", MOMENT, ""),
    ("ended_at", MOMENT, ""),
    ("n_series", WHOLE, ""),
    ("n_volumes", WHOLE, "stored volumes, harmonized ones included"),
    ("n_rows", TEXT, "JSON: rows removed per table"),
    ("n_left", WHOLE, "files of the workspace that still held a key at the end; 0, or a person was told which"),
    ("models", TEXT, "JSON: model@version or site/target, and how: trained, descended, calibrated or fitted"),
    ("because", TEXT, "what is exact afterwards and what is not, in a sentence"),
    RUN,
)

SCHEMAS: dict[str, pa.Schema] = {
    layout.ARRIVAL: ARRIVAL,
    layout.SERIES: SERIES,
    layout.PATIENT_MERGE: PATIENT_MERGE,
    layout.WITHDRAWN: WITHDRAWN,
    layout.STAGE: STAGE,
    layout.LABEL: LABEL,
    layout.RECIPE: FITTED_RECIPE,
    layout.VOLUME: VOLUME,
    layout.FEATURE: FEATURE,
    layout.PREDICTION: PREDICTION,
    layout.TRANSPORTED: TRANSPORTED,
    layout.RANK: RANK,
    layout.POOL: POOL,
    layout.REFERENCE: REFERENCE,
    layout.QUALITY: QUALITY,
    layout.SKETCH: SKETCH,
    layout.SHIFT: SHIFT,
    layout.FINDING: FINDING,
    layout.ALARM: ALARM,
    layout.EPISODE: EPISODE,
    layout.DECISION: DECISION,
    layout.REQUEST: REQUEST,
    layout.RACE: RACE,
    layout.MODEL: MODEL,
    layout.SERVING: SERVING,
    layout.WITHDRAWAL: WITHDRAWAL,
}
