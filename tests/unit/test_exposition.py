"""Rendering, byte for byte as prometheus_client does it (the oracle throughout); negotiation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import prometheus_client as oracle
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import exposition as oracle_text
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics import exposition as oracle_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.utils import floatToGoString

from sr_exporter.metrics.exposition import (
    OPENMETRICS,
    TEXT,
    TEXT_1_0_0,
    Escaping,
    Family,
    Format,
    Kind,
    Sample,
    Syntax,
    encode,
    families_of,
    number,
    render,
    render_family,
    sample_line,
    select,
)
from sr_exporter.metrics.negotiation import accepts_gzip, negotiate

FORMATS = [TEXT, TEXT_1_0_0, OPENMETRICS]
#: What Prometheus 3 asks for.
ALLOWING_UTF_8 = [
    Format(Syntax.TEXT_1_0_0, Escaping.ALLOW_UTF_8),
    Format(Syntax.OPENMETRICS_1_0_0, Escaping.ALLOW_UTF_8),
]
BY_FORMAT = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.syntax.name)

SUFFIXES = {
    Kind.COUNTER: ["_total", "_created"],
    Kind.GAUGE: [""],
    Kind.HISTOGRAM: ["_bucket", "_count", "_sum", "_created"],
    Kind.SUMMARY: ["", "_count", "_sum", "_created"],
    Kind.INFO: ["_info"],
    Kind.STATESET: [""],
    Kind.GAUGEHISTOGRAM: ["_bucket", "_gcount", "_gsum"],
    Kind.UNKNOWN: [""],
}


class Listed:
    """A registry that collects what it was given."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = list(metrics)

    def collect(self) -> list[Metric]:
        return self.metrics

    describe = collect


def oracle_writes(registry: Listed, form: Format) -> bytes:
    if form.syntax is Syntax.OPENMETRICS_1_0_0:
        return oracle_openmetrics.generate_latest(registry, form.escaping, "1.0.0")
    if form.syntax is Syntax.TEXT_1_0_0:
        return oracle_text.generate_latest(registry, form.escaping)
    return oracle_text.generate_latest(registry)


class Drawn(NamedTuple):
    """One family, built twice: by hand for us, and from prometheus_client's own types."""

    ours: Family
    theirs: Metric


#: All of Unicode but surrogates, with the awkward ones often.
texts = st.text(
    st.one_of(st.sampled_from('"\\\n\r\t{},=# é\u2028\0'), st.characters(exclude_categories=["Cs"]))
)
numbers = st.one_of(
    st.floats(),
    st.floats(1e9, 1e10),
    st.integers(10**12, 10**13).map(lambda ms: ms / 1000),
    st.integers(),
    st.integers(-(10**308), 10**308),
    st.integers(-20, 20).map(lambda e: 10.0**e),
    st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 999999, 1000000, 999999.5, 1e16]),
    st.booleans(),
)
label_names = st.sampled_from(["source", "group", "identifier", "Zone", "_x", "a1", "e"])
bases = st.sampled_from(
    ["x", "X_y", "_z", "opensips_sr_status", "in_total", "is_info", "at_created"]
)
label_sets = st.dictionaries(label_names, texts, max_size=4)


@st.composite
def families(draw, values=numbers, kinds=tuple(Kind), helps=texts, labels=label_sets):
    drawn = []
    for i in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(kinds))
        # The digit at the end keeps families from clashing with each other's suffixes.
        base = draw(bases) + str(i)
        unit = draw(st.sampled_from(["", "seconds"])) if kind is Kind.GAUGE else ""
        theirs = Metric(base, draw(helps), kind.value, unit)
        base = theirs.name
        own = {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(kind, "")
        samples = []
        for label_set in draw(
            st.lists(labels, max_size=4, unique_by=lambda ls: tuple(sorted(ls.items())))
        ):
            suffix = draw(st.sampled_from(SUFFIXES[kind]))
            value = draw(values)
            theirs.add_sample(base + suffix, label_set, value)
            pairs = tuple(draw(st.permutations(list(label_set.items()))))
            samples.append(Sample("" if suffix == own else suffix, pairs, value))
        ours = Family(base + own, kind, theirs.documentation, samples, unit)
        drawn.append(Drawn(ours, theirs))
    return drawn


# --- bytes ---------------------------------------------------------------------------------


@given(drawn=families())
def test_the_same_families_give_the_same_bytes(drawn: list[Drawn]):
    """Whatever the kinds, labels, helps and values, prometheus_client writes the same bytes."""
    registry = Listed(d.theirs for d in drawn)
    for form in [*FORMATS, *ALLOWING_UTF_8]:
        assert render([d.ours for d in drawn], form) == oracle_writes(registry, form)


@given(drawn=families())
def test_adapted_metrics_give_the_same_bytes(drawn: list[Drawn]):
    """Families converted from Metric objects render as the Metric objects do."""
    registry = Listed(d.theirs for d in drawn)
    for form in FORMATS:
        ours = families_of(registry.collect(), created=True)
        assert render(ours, form) == oracle_writes(registry, form)


@given(drawn=families())
def test_an_answer_is_its_families_one_after_the_other(drawn: list[Drawn]):
    """Chunks of single families, joined, and the trailer make the whole answer."""
    ours = [d.ours for d in drawn]
    for form in FORMATS:
        chunks = [render_family(family, form) for family in ours]
        assert render(ours, form) == b"".join(chunks) + form.trailer


@given(drawn=families())
def test_escaping_changes_no_byte(drawn: list[Drawn]):
    """Valid names pass every escaping scheme as they are, unlike client_python's dots."""
    ours = [d.ours for d in drawn]
    for syntax in (Syntax.TEXT_1_0_0, Syntax.OPENMETRICS_1_0_0):
        assert len({render(ours, Format(syntax, escaping)) for escaping in Escaping}) == 1


@BY_FORMAT
def test_a_registry_in_use(form: Format):
    """Instruments, process, platform and garbage collector metrics render as the original."""
    registry = oracle.CollectorRegistry()
    oracle.Counter("pushes", "Pushes.", ["code"], registry=registry).labels("200").inc(2_500_000)
    oracle.Gauge("backlog_bytes", "Owed.", unit="bytes", registry=registry).set(-1.5)
    histogram = oracle.Histogram("poll", 'A "poll".', ["source"], registry=registry)
    histogram.labels('a"b\\c\n').observe(0.3)
    oracle.Summary("body", "Sizes.", registry=registry).observe(7)
    oracle.Info("build", "Built as.", registry=registry).info({"version": "0.1.0"})
    oracle.Enum("mode", "Mode.", states=["on", "off"], registry=registry).state("off")
    oracle.ProcessCollector(registry=registry)
    oracle.PlatformCollector(registry=registry)
    oracle.GCCollector(registry=registry)
    metrics = list(registry.collect())
    written = oracle_writes(Listed(metrics), form)
    assert render(families_of(metrics, created=True), form) == written
    assert b"poll_created" in written

    without = Listed(metrics)
    for metric in metrics:
        metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
    assert render(families_of(metrics), form) == oracle_writes(without, form)


def test_created_samples_are_left_out():
    """By default a counter has no `_created`, but a gauge may be called so."""
    registry = oracle.CollectorRegistry()
    oracle.Counter("pushes", "Pushes.", registry=registry)
    oracle.Gauge("last_created", "When.", registry=registry)
    text = render(families_of(registry.collect()), TEXT)
    assert b"pushes_created" not in text
    assert b"last_created 0.0" in text


def test_what_a_scrape_looks_like():
    """The three formats differ in metadata and trailer, never in samples."""
    family = Family(
        "opensips_sr_reports_total",
        Kind.COUNTER,
        'Reports "seen".',
        [Sample("", (("source", "sip-1"), ("group", "core"), ("identifier", "main")), 1_500_000)],
    )
    line = b'opensips_sr_reports_total{group="core",identifier="main",source="sip-1"} 1.5e+06\n'
    text = (
        b'# HELP opensips_sr_reports_total Reports "seen".\n'
        b"# TYPE opensips_sr_reports_total counter\n" + line
    )
    assert render([family], TEXT) == text
    assert render([family], TEXT_1_0_0) == text
    assert render([family], OPENMETRICS) == (
        b'# HELP opensips_sr_reports Reports \\"seen\\".\n'
        b"# TYPE opensips_sr_reports counter\n" + line + b"# EOF\n"
    )
    assert encode(sample_line(family.name, family.samples[0].labels, 1_500_000)) == line


@BY_FORMAT
def test_no_families(form: Format):
    """Nothing to show is an empty body, or just the end in OpenMetrics."""
    assert render([], form) == oracle_writes(Listed([]), form) == form.trailer


@given(numbers)
@example(-1_000_000)
@example(1_000_000)
@example(123456789.125)
@example(5e-324)
@example(999999999.9999999)
@example(1e9)
@example(9999999999.999998)
@example(1e10)
def test_numbers(value: float):
    """Numbers look as prometheus_client's floatToGoString makes them."""
    assert number(value) == floatToGoString(value)


def test_integers_beyond_the_floats():
    """Where prometheus_client gives up with OverflowError, the value is an infinity."""
    assert number(10**400) == "+Inf"
    assert number(-(10**400)) == "-Inf"


@BY_FORMAT
@given(text=st.text(st.characters() | st.sampled_from("\ud800\udfff")))
@example("\ud800")
@example("a\udfffb\ud83d\ude00")
def test_lone_surrogates_cost_one_character(form: Format, text: str):
    """A surrogate in a label or help becomes U+FFFD; the rest stands, and nothing raises."""
    clean = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)

    def family(said: str) -> Family:
        return Family("x", Kind.GAUGE, said, [Sample("", (("details", said),), 1)])

    assert render([family(text)], form) == render([family(clean)], form)


# --- parsed back ---------------------------------------------------------------------------


Parse = Callable[[str], Iterable[Metric]]
PARSERS: list[tuple[Format, Parse]] = [
    (TEXT, parse_text),
    (TEXT_1_0_0, parse_text),
    (OPENMETRICS, parse_openmetrics),
]


@given(
    drawn=families(
        values=st.one_of(st.floats(min_value=0), st.integers(0, 2**63)),
        kinds=(Kind.GAUGE, Kind.COUNTER),
        helps=st.just("Said."),
    )
)
def test_parsed_back(drawn: list[Drawn]):
    """prometheus_client's parsers read the names, labels and values that went in."""
    ours = list(families_of([d.theirs for d in drawn]))
    expected = [
        (family.sample_name(sample.suffix), dict(sample.labels), float(sample.value))
        for family in ours
        for sample in family.samples
    ]
    for form, parse in PARSERS:
        parsed = parse(render(ours, form).decode())
        assert [(s.name, s.labels, s.value) for m in parsed for s in m.samples] == expected


@pytest.mark.parametrize(("form", "parse"), PARSERS, ids=["TEXT_0_0_4", "TEXT_1_0_0", "OM_1_0_0"])
def test_a_histogram_parsed_back(form: Format, parse: Parse):
    """Buckets, sum and count come back as one histogram."""
    registry = oracle.CollectorRegistry()
    oracle.Histogram("poll", "A poll.", ["source"], registry=registry).labels("é\n").observe(2)
    (family,) = families_of(registry.collect())
    (metric,) = parse(render([family], form).decode())
    assert (metric.name, metric.type) == ("poll", "histogram")
    assert [s.name for s in metric.samples] == [
        family.sample_name(s.suffix) for s in family.samples
    ]
    assert metric.samples[-2].labels == {"source": "é\n"}


# --- families ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "1x", "a:b", "a-b", "é", "a\n", 'a"'])
def test_names_that_would_need_escaping_are_refused(name: str):
    """No family can be made whose name an escaping scheme would alter."""
    with pytest.raises(ValueError, match="is no metric name"):
        Family(name, Kind.GAUGE, "", [])


@pytest.mark.parametrize(("kind", "suffix"), [(Kind.COUNTER, "_total"), (Kind.INFO, "_info")])
def test_counters_and_infos_end_as_they_must(kind: Kind, suffix: str):
    """A counter without `_total` or an info without `_info` is a mistake found at once."""
    with pytest.raises(ValueError, match=f"must end in {suffix}"):
        Family("x", kind, "", [])


@pytest.mark.parametrize(("kind", "sample"), [("gauge", "y"), ("counter", "x"), ("info", "x")])
def test_samples_foreign_to_their_metric_are_refused(kind: str, sample: str):
    """A Metric with a sample not named after it cannot be told from a broken collector."""
    metric = Metric("x", "", kind)
    metric.add_sample(sample, {}, 1)
    with pytest.raises(ValueError, match="is no sample of"):
        list(families_of([metric]))


# --- name[] --------------------------------------------------------------------------------


@given(drawn=families(), data=st.data())
def test_name_filter_is_restricted_registry(drawn: list[Drawn], data: st.DataObject):
    """name[] keeps what client_python's restricted_registry keeps."""
    for d in drawn:
        d.theirs.unit = ""  # which restricted_registry loses
    names = {s.name for d in drawn for s in d.theirs.samples}
    names |= {d.theirs.name for d in drawn} | {d.ours.name for d in drawn} | {"unknown"}
    chosen = data.draw(st.sets(st.sampled_from(sorted(names))))
    registry = oracle.CollectorRegistry()
    collector = Listed(d.theirs for d in drawn)
    registry.register(collector)
    for form in FORMATS:
        theirs = oracle_writes(registry.restricted_registry(chosen), form)
        ours = families_of([d.theirs for d in drawn], created=True)
        assert render(select(ours, chosen), form) == theirs


@BY_FORMAT
def test_unknown_names_give_an_empty_answer(form: Format):
    """A name that no sample bears, a family's included, selects nothing."""
    histogram = Family("poll", Kind.HISTOGRAM, "", [Sample("_sum", (), 1), Sample("_count", (), 1)])
    assert render(select([histogram], ["poll", "nothing"]), form) == form.trailer
    assert render(select([histogram], []), form) == form.trailer


def test_a_whole_family_passes_the_filter_as_it_is():
    """Where every sample is wanted nothing is copied, and the unit stays."""
    family = Family("x_seconds", Kind.GAUGE, "", [Sample("", (), 1)], "seconds")
    (kept,) = select([family], {"x_seconds", "y"})
    assert kept is family


# --- negotiation ---------------------------------------------------------------------------

T004 = "text/plain; version=0.0.4; charset=utf-8"
T100 = "text/plain; version=1.0.0; charset=utf-8; escaping="
OM = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping="

PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;"
    "q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROMETHEUS_3_TEXT_FIRST = (
    "text/plain;version=1.0.0;escaping=underscores;q=0.6,text/plain;version=0.0.4;q=0.5,"
    "application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.4,*/*;q=0.2"
)
PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_2_30 = (
    "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


def sentence(text: str, *values: object):
    return pytest.param(*values, id=text)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        sentence("Prometheus 3 gets OpenMetrics unescaped", PROMETHEUS_3, OM + "allow-utf-8"),
        sentence("protobuf first is passed over", PROMETHEUS_3_PROTOBUF, OM + "allow-utf-8"),
        sentence(
            "Prometheus 3 told to prefer text gets text 1.0.0",
            PROMETHEUS_3_TEXT_FIRST,
            T100 + "underscores",
        ),
        sentence("Prometheus 2.42 gets OpenMetrics", PROMETHEUS_2_42, OM + "underscores"),
        sentence("OpenMetrics 0.0.1 is passed over, as by client_python", PROMETHEUS_2_30, T004),
        sentence(
            "OpenMetrics 2 is passed over", "application/openmetrics-text;version=2.0.0", T004
        ),
        sentence("no header means text 0.0.4", None, T004),
        sentence("an empty header too", "", T004),
        sentence("curl gets text 0.0.4", "*/*", T004),
        sentence("a browser gets text 0.0.4", BROWSER, T004),
        sentence("text of no version is 0.0.4", "text/plain", T004),
        sentence("any text is 0.0.4", "text/*", T004),
        sentence("text 0.0.4 by name", "text/plain;version=0.0.4", T004),
        sentence("text 1.0.0 by name", "text/plain; version=1.0.0", T100 + "underscores"),
        sentence("text of a version unknown", "text/plain;version=0.0.3", T004),
        sentence(
            "OpenMetrics of no version is 1.0.0", "application/openmetrics-text", OM + "underscores"
        ),
        sentence("any application type is OpenMetrics", "application/*", OM + "underscores"),
        sentence("types are of no case", "APPLICATION/OpenMetrics-Text", OM + "underscores"),
        sentence("nothing we have", "application/json, image/png;q=0.2", T004),
        sentence(
            "the higher q wins, wherever it stands",
            "text/plain;q=0.4, application/openmetrics-text;q=0.5",
            OM + "underscores",
        ),
        sentence(
            "among equals the first wins: text",
            "text/plain, application/openmetrics-text;version=1.0.0",
            T004,
        ),
        sentence(
            "among equals the first wins: OpenMetrics",
            "application/openmetrics-text;version=1.0.0, text/plain",
            OM + "underscores",
        ),
        sentence(
            "among equals a name goes before a wildcard",
            "*/*, application/openmetrics-text",
            OM + "underscores",
        ),
        sentence("q=0 excludes", "application/openmetrics-text;q=0, */*;q=0.1", T004),
        sentence(
            "q=0.000 excludes", "text/plain;q=0.000, application/*;q=0.001", OM + "underscores"
        ),
        sentence(
            "q=0 of one version leaves the other",
            "text/plain;version=0.0.4;q=0, text/plain;q=0.5",
            T100 + "underscores",
        ),
        sentence(
            "a precise range governs over a wide one of higher q",
            "application/*;q=0.9, application/openmetrics-text;q=0.1, text/plain;q=0.5",
            T004,
        ),
        sentence(
            "a version named governs over none, though listed later",
            "text/plain;q=0.5, text/plain;version=0.0.4;q=0",
            T100 + "underscores",
        ),
        sentence(
            "an escaping named governs over none, though listed later",
            "application/openmetrics-text, application/openmetrics-text;escaping=underscores;q=0",
            OM + "allow-utf-8",
        ),
        sentence(
            "of the same range twice the first counts",
            "application/*;q=0.2, application/*;q=0.9, text/plain;q=0.5",
            T004,
        ),
        sentence("all excluded is still text 0.0.4", "*/*;q=0", T004),
        sentence(
            "escaping underscores",
            "text/plain;version=1.0.0;escaping=underscores",
            T100 + "underscores",
        ),
        sentence("escaping dots", "text/plain;version=1.0.0;escaping=dots", T100 + "dots"),
        sentence("escaping values", "application/openmetrics-text;escaping=values", OM + "values"),
        sentence(
            "an escaping unknown is underscores",
            "application/openmetrics-text;version=1.0.0;escaping=rot13",
            OM + "underscores",
        ),
        sentence("text 0.0.4 has no escaping", "text/plain;version=0.0.4;escaping=dots", T004),
        sentence(
            "of two escapings the preferred one",
            "application/openmetrics-text;escaping=dots;q=0.3,"
            "application/openmetrics-text;escaping=values;q=0.4",
            OM + "values",
        ),
        sentence(
            "parameters may be quoted and spaced",
            'application/openmetrics-text ; Version="1.0.0" ; escaping="allow\\-utf-8" ; Q=0.5',
            OM + "allow-utf-8",
        ),
        sentence(
            "a comma or semicolon in quotes separates nothing",
            'text/html;a="x, text/plain;version=1.0.0", application/openmetrics-text;q=0.1',
            OM + "underscores",
        ),
        sentence(
            "an element of malformed q is passed over",
            "text/plain;version=1.0.0;q=x, application/openmetrics-text;q=0.1",
            OM + "underscores",
        ),
        sentence("q above 1 is malformed", "application/openmetrics-text;q=2", T004),
        sentence("q of nan is malformed", "application/openmetrics-text;q=nan", T004),
        sentence("a type of no slash is passed over", "openmetrics-text, text, *", T004),
        sentence("*/subtype is no range", "*/openmetrics-text", T004),
        sentence(
            "empty elements are passed over",
            ",, ;,application/openmetrics-text;;q=0.5,/",
            OM + "underscores",
        ),
        sentence("an escaped quote ends no quotes", 'text/html;a="x\\", application/*;b="', T004),
        sentence("a quote left open swallows the rest", 'text/html;a=", application/*', T004),
        sentence("a header too long counts as none", "application/*," * 1000, T004),
    ],
)
def test_accept(accept: str | None, content_type: str):
    """What each Accept header is answered with."""
    assert negotiate(accept).content_type == content_type


@pytest.mark.parametrize(
    "accept", [PROMETHEUS_3, PROMETHEUS_3_PROTOBUF, PROMETHEUS_3_TEXT_FIRST, PROMETHEUS_2_30]
)
def test_prometheus_gets_what_client_python_gives_it(accept: str):
    """For headers that Prometheus sends, client_python answers with the same Content-Type."""
    assert negotiate(accept).content_type == choose_encoder(accept)[1]


@pytest.mark.parametrize("escaping", [None, *Escaping])
@pytest.mark.parametrize("syntax", Syntax)
def test_a_content_type_asks_for_itself(syntax: Syntax, escaping: Escaping | None):
    """Every Content-Type we send, sent back as Accept, chooses the same format again."""
    if (syntax is Syntax.TEXT_0_0_4) != (escaping is None):
        return
    form = Format(syntax, escaping)
    assert negotiate(form.content_type) == form


def headers(*words: str) -> st.SearchStrategy[str]:
    """Give arbitrary text, and text made of what such headers are made of."""
    pieces = st.sampled_from([*words, *';,="\\/*. ', ";q=", "0", "1", "0.5", "q", "*/*"])
    return st.one_of(st.text(), st.lists(pieces | st.text(max_size=3)).map("".join))


@given(headers("application/openmetrics-text", "text/plain", ";version=", "1.0.0", ";escaping="))
def test_any_accept_is_answered(accept: str):
    """Whatever is sent, one of our formats is chosen."""
    form = negotiate(accept)
    assert (form == TEXT) == (form.escaping is None)


@given(headers("gzip", "identity", "deflate", "br"))
def test_any_accept_encoding_is_answered(accept_encoding: str):
    """Whatever is sent, the answer is yes or no."""
    assert accepts_gzip(accept_encoding) in (True, False)


@pytest.mark.parametrize(
    ("accept_encoding", "accepted"),
    [
        sentence("no header, no gzip", None, False),
        sentence("an empty header, no gzip", "", False),
        sentence("what Prometheus sends", "gzip", True),
        sentence("what browsers send", "gzip, deflate, br, zstd", True),
        sentence("case does not count", "GZip", True),
        sentence("x-gzip is gzip", "x-gzip", True),
        sentence("others are not gzip", "deflate, br", False),
        sentence("gzipped is not gzip", "gzipped", False),
        sentence("q=0 refuses", "gzip;q=0", False),
        sentence("q=0.000 refuses", "gzip; q=0.000", False),
        sentence("a little is enough", "gzip;q=0.001", True),
        sentence("the star counts", "*", True),
        sentence("the star of q=0 does not", "*;q=0", False),
        sentence("gzip by name goes before the star: refused", "*, gzip;q=0", False),
        sentence("gzip by name goes before the star: accepted", "gzip;q=0.1, *;q=0", True),
        sentence("identity alone", "identity", False),
        sentence("identity liked better", "identity, gzip;q=0.5", False),
        sentence("identity liked as much", "identity, gzip", True),
        sentence("identity forbidden", "identity;q=0, gzip;q=0.1", True),
        sentence("a malformed q is passed over", "gzip;q=yes", False),
        sentence("a header too long counts as none", "gzip," * 1000, False),
    ],
)
def test_accept_encoding(accept_encoding: str | None, accepted: bool):
    """Which Accept-Encoding headers are answered with gzip."""
    assert accepts_gzip(accept_encoding) is accepted
