"""One Great Expectations run over one batch frame.

Great Expectations takes seconds to import and wants to call home; both happen only in here,
the second not at all.
"""

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from platform_core.quality.contract import Rule

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite
    from great_expectations.core import ExpectationValidationResult

KEY = "series_key"
NOISY = ("great_expectations", "great_expectations.data_context.types.base")
"""Loggers to be silenced; the second one sets its own level."""
EVERY_ROW = {
    "result_format": "COMPLETE",
    "unexpected_index_column_names": [KEY],
    "return_unexpected_index_query": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleResult:
    """One rule on one batch."""

    rule: Rule
    n_checked: int | None
    """Scans that the rule could judge; None if the batch lacks a column of it."""
    holds: bool = True
    """What the library said of the batch as a whole."""
    failures: dict[str, str] = field(default_factory=dict)
    """What was found, by series key; empty for a rule about the distribution of a batch."""

    @property
    def passed(self) -> bool | None:
        """None if the rule could judge nothing."""
        return self.holds if self.n_checked else None

    @property
    def observed(self) -> str:
        """The batch in a few words."""
        if self.n_checked is None:
            return "not measured in this batch"
        if not self.n_checked:
            return "no scan that it is about"
        if not self.holds and not self.failures:
            return f"{self.n_checked} scans together fail"
        return f"{len(self.failures)} of {self.n_checked} scans fail"


def check_frame(frame: pa.Table, rules: Iterable[Rule]) -> list[RuleResult]:
    """Hold every rule against a frame of one row per scan, in the order of the rules.

    A rule about a column that the frame lacks is not run, and says so.
    """
    rules = list(rules)
    present = [rule for rule in rules if columns(rule) <= set(frame.column_names)]
    found = {result.rule.name: result for result in _validate(frame, present)} if present else {}
    return [found.get(rule.name, RuleResult(rule=rule, n_checked=None)) for rule in rules]


def columns(rule: Rule) -> set[str]:
    """The columns that an expectation names."""
    named = {value for key, value in rule.expectation.items() if key in ("column", "column_A", "column_B")}
    return named | ({"modality"} if rule.modality else set())


def _validate(frame: pa.Table, rules: list[Rule]) -> list[RuleResult]:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at import
    import great_expectations as gx

    for logger in NOISY:
        logging.getLogger(logger).setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("batch").add_dataframe_asset("series")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame.to_pandas()})
    # Not a checkpoint: that one serializes to JSON at once and stumbles over NumPy booleans.
    report = batch.validate(_suite(rules), result_format=EVERY_ROW)
    by_name = {rule.name: rule for rule in rules}
    return [_result(by_name[found.expectation_config.meta["rule"]], found, frame.num_rows) for found in report.results]


def _suite(rules: list[Rule]) -> "ExpectationSuite":
    from great_expectations import ExpectationSuite
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.expectations.row_conditions import Column

    suite = ExpectationSuite(name="quality")
    for rule in rules:
        arguments = {key: value for key, value in rule.expectation.items() if key != "type"}
        if rule.modality:
            arguments["row_condition"] = Column("modality") == rule.modality
        configuration = ExpectationConfiguration(
            type=rule.expectation["type"], kwargs=arguments, meta={"rule": rule.name}
        )
        suite.add_expectation_configuration(configuration)
    return suite


def _result(rule: Rule, found: "ExpectationValidationResult", n_scans: int) -> RuleResult:
    if found.exception_info.get("raised_exception"):
        raise AssertionError(f"rule {rule.name}: {found.exception_info['exception_message']}")
    facts = found.result
    failures = {str(row[KEY]): _spelt(row) for row in facts.get("unexpected_index_list") or []}
    n_checked = int(facts.get("element_count", n_scans)) - int(facts.get("missing_count") or 0)
    return RuleResult(rule=rule, n_checked=n_checked, holds=bool(found.success), failures=failures)


def _spelt(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in row.items() if name != KEY)


def _value(value: Any) -> str:
    if value is None or value != value:  # noqa: PLR0124 - NaN is how pandas spells null
        return "missing"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
