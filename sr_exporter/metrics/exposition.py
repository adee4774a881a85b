"""Metric families as bytes: pure functions, written exactly as prometheus_client writes them.

Three rules that other modules may build on:

1. A sample's line is the same in every format, only the metadata above it differs. So lines
   kept once serve all three.
2. Text 0.0.4 and text 1.0.0 differ in nothing but their content type.
3. Escaping never changes a name. Ours are all valid without it, and such names pass every
   scheme untouched, as they do in Prometheus' Go client. (client_python doubles the
   underscores under `dots`, and under `values` names its OpenMetrics samples unlike their
   family; a dashboard would find neither.)

Timestamps, exemplars and native histograms are not written: nothing here has any.
"""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from prometheus_client import Metric

Labels = tuple[tuple[str, str], ...]

#: No colon: Prometheus keeps it for recording rules.
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_SURROGATES = re.compile("[\ud800-\udfff]")
_digits = msgspec.json.encode


class Kind(enum.StrEnum):
    """The types of OpenMetrics. An "info gauge" (`x_info`, always 1) is a GAUGE."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"
    INFO = "info"
    STATESET = "stateset"
    GAUGEHISTOGRAM = "gaugehistogram"
    UNKNOWN = "unknown"


#: What OpenMetrics takes off a family's name, and puts back on its samples.
_OWN_SUFFIX = {Kind.COUNTER: "_total", Kind.INFO: "_info"}
_TEXT_TYPES = {
    Kind.INFO: "gauge",
    Kind.STATESET: "gauge",
    Kind.GAUGEHISTOGRAM: "histogram",
    Kind.UNKNOWN: "untyped",
}
_CREATED = "_created"
#: Samples the text format does not know: it has them as gauges of their own, after the family.
_ONLY_OPENMETRICS = frozenset({_CREATED, "_gsum", "_gcount"})


class Sample(NamedTuple):
    #: Empty for the sample named as its family, else `_bucket`, `_sum`, `_count`, ...
    suffix: str
    #: In any order: they are written sorted by name.
    labels: Labels
    value: float


@dataclass(frozen=True, slots=True)
class Family:
    #: As users write it: a counter's ends in `_total`, an info's in `_info`.
    name: str
    kind: Kind
    help: str
    samples: Sequence[Sample]
    unit: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no metric name")
        if not self.name.endswith(_OWN_SUFFIX.get(self.kind, "")):
            raise ValueError(f"{self.kind} {self.name} must end in {_OWN_SUFFIX[self.kind]}")

    @property
    def base(self) -> str:
        """The name OpenMetrics gives the family, and suffixes are appended to."""
        return self.name.removesuffix(_OWN_SUFFIX.get(self.kind, ""))

    def sample_name(self, suffix: str) -> str:
        return self.base + suffix if suffix else self.name


class Syntax(enum.Enum):
    TEXT_0_0_4 = "text/plain; version=0.0.4; charset=utf-8"
    TEXT_1_0_0 = "text/plain; version=1.0.0; charset=utf-8"
    OPENMETRICS_1_0_0 = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Escaping(enum.StrEnum):
    UNDERSCORES = "underscores"
    ALLOW_UTF_8 = "allow-utf-8"
    DOTS = "dots"
    VALUES = "values"


@dataclass(frozen=True, slots=True)
class Format:
    syntax: Syntax
    #: Only told back to who asked (rule 3); text 0.0.4 knows none.
    escaping: Escaping | None = None

    @property
    def content_type(self) -> str:
        plain = self.syntax.value
        return f"{plain}; escaping={self.escaping}" if self.escaping else plain

    @property
    def openmetrics(self) -> bool:
        return self.syntax is Syntax.OPENMETRICS_1_0_0

    @property
    def trailer(self) -> bytes:
        """What follows the last family."""
        return b"# EOF\n" if self.openmetrics else b""


TEXT = Format(Syntax.TEXT_0_0_4)
TEXT_1_0_0 = Format(Syntax.TEXT_1_0_0, Escaping.UNDERSCORES)
OPENMETRICS = Format(Syntax.OPENMETRICS_1_0_0, Escaping.UNDERSCORES)


# --- rendering -----------------------------------------------------------------------------


def render(families: Iterable[Family], form: Format) -> bytes:
    """Write a whole answer: each family in its turn, then what ends the format."""
    chunks = [render_family(family, form) for family in families]
    chunks.append(form.trailer)
    return b"".join(chunks)


def render_family(family: Family, form: Format) -> bytes:
    """Write one family: its metadata and all its samples."""
    lines = [header(family, form)]
    extra: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for suffix, labels, value in family.samples:
        name = names.get(suffix)
        if name is None:
            name = names[suffix] = family.sample_name(suffix)
        line = sample_line(name, labels, value)
        if suffix in _ONLY_OPENMETRICS and not form.openmetrics:
            extra.setdefault(suffix, []).append(line)
        else:
            lines.append(line)
    for suffix in sorted(extra):
        lines.append(_text_header(names[suffix], Kind.GAUGE, family.help))
        lines += extra[suffix]
    return encode("".join(lines))


def header(family: Family, form: Format) -> str:
    """Write the metadata that stands above a family's samples."""
    if not form.openmetrics:
        kind = _TEXT_TYPES.get(family.kind, family.kind)
        return _text_header(family.name, kind, family.help)
    base = family.base
    unit = f"# UNIT {base} {family.unit}\n" if family.unit else ""
    return f"# HELP {base} {escape(family.help)}\n# TYPE {base} {family.kind}\n{unit}"


def _text_header(name: str, kind: str, text: str) -> str:
    # Unlike OpenMetrics, text keeps quotes as they are here.
    escaped = text.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {escaped}\n# TYPE {name} {kind}\n"


def sample_line(name: str, labels: Labels, value: float) -> str:
    """Write one sample under its full name, line end included; the same in all formats."""
    if not labels:
        return f"{name} {number(value)}\n"
    return f"{name}{labels_text(labels)} {number(value)}\n"


def labels_text(labels: Labels) -> str:
    """Write labels as they stand between a sample's name and its value."""
    pairs = ",".join([f'{label}="{escape(text)}"' for label, text in sorted(labels)])
    return f"{{{pairs}}}"


def escape(text: str) -> str:
    """Escape a label value."""
    # `replace` gives back the same string, at the price of a memchr, where there is nothing.
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def number(value: float) -> str:
    """Write a value as Go would, nearly: `1.0`, `1e+06`, `-1000000.0`, `+Inf`.

    prometheus_client follows Go into the exponent for positive numbers only.
    """
    if type(value) is int and -1_000_000 < value < 1_000_000:
        return f"{value}.0"
    if type(value) is float and 1e9 <= value < 1e10:
        # A time: most values that are not small are one. msgspec gives the digits of `repr`, and
        # takes a sixth of its time.
        digits = _digits(value).decode()
        return f"{digits[0]}.{digits[1:10]}{digits[11:]}".rstrip("0.") + "e+09"
    try:
        exact = float(value)
    except OverflowError:  # an integer beyond the floats
        exact = math.inf if value > 0 else -math.inf
    if not math.isfinite(exact):
        return "NaN" if math.isnan(exact) else "+Inf" if exact > 0 else "-Inf"
    digits = repr(exact)
    point = digits.find(".")
    if exact > 0 and point > 6:
        mantissa = f"{digits[0]}.{digits[1:point]}{digits[point + 1 :]}".rstrip("0.")
        return f"{mantissa}e+{point - 1:02d}"
    return digits


def encode(text: str) -> bytes:
    """Encode as UTF-8. A lone surrogate becomes U+FFFD: it must not cost the whole scrape."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text).encode()


# --- choosing and converting ---------------------------------------------------------------


def select(families: Iterable[Family], names: Collection[str]) -> Iterator[Family]:
    """Keep the samples that bear one of these names; families left empty vanish.

    Names are those of samples (`x_total`, `x_bucket`), as in client_python's
    `restricted_registry`: a family's own name, where no sample bears it, selects nothing.
    """
    wanted = frozenset(names)
    for family in families:
        suffixes = {sample.suffix for sample in family.samples}
        kept = {suffix for suffix in suffixes if family.sample_name(suffix) in wanted}
        if not kept:
            continue
        if kept == suffixes:
            yield family
        else:
            yield replace(family, samples=[s for s in family.samples if s.suffix in kept])


def families_of(metrics: Iterable[Metric], *, created: bool = False) -> Iterator[Family]:
    """Convert what a prometheus_client registry's `collect()` gives.

    `_created` samples are left out unless asked for: Prometheus takes them for series.
    """
    for metric in metrics:
        kind = Kind(metric.type)
        name = metric.name + _OWN_SUFFIX.get(kind, "")
        samples = []
        for sample in metric.samples:
            suffix = _suffix(sample.name, name, metric.name)
            if created or suffix != _CREATED:
                samples.append(Sample(suffix, tuple(sample.labels.items()), sample.value))
        yield Family(name, kind, metric.documentation, samples, metric.unit)


def _suffix(sample: str, family: str, base: str) -> str:
    if sample == family:
        return ""
    suffix = sample.removeprefix(base)
    if suffix in ("", sample):
        raise ValueError(f"{sample} is no sample of {family}")
    return suffix
