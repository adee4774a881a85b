"""Templates of annotations: checked at the start, and sure to end."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from sr_exporter.config import parse
from sr_exporter.config.templates import (
    EXAMPLES,
    MOST_CHARACTERS,
    MOST_TEMPLATE_CHARACTERS,
    Template,
    template,
)
from sr_exporter.config.values import AlertRule
from sr_exporter.errors import ConfigError
from tests.unit.test_notify_book import Bench, only


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain", "plain"),
        ("{{ group }}/{{ identifier }} on {{ source }}", "drouting/main on sip-1"),
        ("{{ status - 1 }} {{ meaning|upper }}", "-2 LOADING DATA"),
        ("{% if status in [-1, -2] %}a{% elif ready %}b{% else %}c{% endif %}", "a"),
        ("{{ labels.team }}{{ labels['team'] }}{{ labels.items }}", "carrierscarriers"),
        ("{{ labels.nobody or 'none' }}", "none"),
        ("{{ details[:3] }}{{ details|truncate(3, True, '') }}", "relrel"),
        ("<{{ '&' }}>", "<&>"),
        ("{{ details is defined and not ready }}", "True"),
        ("{{ ('page' if severity == 'critical' else 'mail') ~ '!' }}", "mail!"),
    ],
)
def test_what_templates_say(text, said):
    """Plain text, with nothing escaped."""
    assert template(text).render(EXAMPLES[0]) == said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{ nobody }}", "nobody is not known"),
        ("{% if ready %}{{ nobody }}{% endif %}", "nobody is not known"),
        ("{% for x in reports %}{% endfor %}", "for is not allowed"),
        ("{% set a = 1 %}", "assign is not allowed"),
        ("{{ details.upper() }}", "call is not allowed"),
        ("{{ details.__class__ }}", "only labels have parts"),
        ("{{ range(9) }}", "call is not allowed"),
        ("{{ 'a' * 9 }}", "mul is not allowed"),
        ("{{ 2 ** 9 }}", "pow is not allowed"),
        ("{{ '%9d' % 1 }}", "mod is not allowed"),
        ("{{ details|center(9) }}", "the filter center is not allowed"),
        ("{{ details|replace('', details) }}", "the filter replace is not allowed"),
        ("{% include 'x' %}", "include is not allowed"),
        ("{{ source", "unexpected end of template"),
        ("a\n{{ ) }}", "line 2: unexpected ')'"),
        ("{{ status + details }}", "fails for OpenSIPSNotReady: unsupported operand"),
        ("{{ details[0] + 1 }}", "fails for OpenSIPSNotReady"),
        ("{{ " + "(" * 1500 + "1" + ")" * 1500 + " }}", "is nested too deeply"),
        ("x" * (MOST_TEMPLATE_CHARACTERS + 1), "must not be longer than 4096"),
        # Found by fuzzing: the first took a minute, and each ended the exporter with a traceback or
        # had Python write a warning.
        ("{{ " + "-" * 300 + "status }}", "is nested too deeply"),
        ("{% if 1 %}" * 150 + "{% endif %}" * 150, "is nested too deeply"),
        ("{{ status" + "|int" * 31 + " }}", "is nested too deeply"),
        ("{{ 9e9999|int }}", "fails for OpenSIPSNotReady: name 'inf' is not defined"),
        ("{{ 1[0:1] }}", "numbers have no parts"),
        ("{{ reports[:,reports] }}", "cannot be compiled: a slice stands alone in its brackets"),
        ("{{ details|truncate(0) }}", "fails for OpenSIPSNotReady: expected length >= 3, got 0"),
        ("{{ (9**9**9)[0] }}", "pow is not allowed here"),
    ],
)
def test_what_is_wrong_is_a_fault_of_the_configuration(text, why):
    """With the path of the annotation, and before anything is changed."""
    with pytest.raises(ValueError, match=re.escape(why)):
        template(text)
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    with pytest.raises(ConfigError) as refused:
        parse(f'alerts: {{rules: [{{annotations: {{said: "{quoted}"}}}}]}}', directory=Path())
    (fault,) = refused.value.faults
    assert fault.where == "alerts.rules[0].annotations.said"
    assert why in fault.what


def test_what_fails_only_at_an_alert_is_told_in_its_place():
    """The trial cannot know every value; the alert goes out all the same."""
    strange = template("{% if status == -3 %}{{ status + details }}{% endif %}")
    said = strange.render({**EXAMPLES[0], "status": -3})
    assert said.startswith("(this template failed: unsupported operand")


def test_what_a_filter_asserts_is_told_in_its_place():
    """Found by fuzzing, in the trial: it would have ended the alerting."""
    strange = template("{% if status == -3 %}{{ details|truncate(0) }}{% endif %}")
    said = strange.render({**EXAMPLES[0], "status": -3})
    assert said == "(this template failed: expected length >= 3, got 0)"


def test_a_number_without_digits_that_no_trial_sees_is_told_in_its_place():
    """Found by fuzzing: it ended the alerting."""
    strange = template("{% if status == -3 %}{{ status + 9e9999 }}{% endif %}")
    said = strange.render({**EXAMPLES[0], "status": -3})
    assert said == "(this template failed: name 'inf' is not defined)"


def test_time_and_length_are_bounded():
    """Whatever the texts are."""
    values = {**EXAMPLES[0], "details": "x" * 1_000_000, "reports": "{{ source }}" * 1000}
    longest = template("{{ details|upper }}" * 200)
    before = time.thread_time()
    said = longest.render(values)
    assert time.thread_time() - before < 2
    assert len(said) == MOST_CHARACTERS
    assert template("{{ reports }}").render(values).startswith("{{ source }}{{")


def rule(**texts: str) -> AlertRule:
    return AlertRule(annotations=tuple((name, Template(text)) for name, text in texts.items()))


def test_annotations_take_the_place_of_those_built_in():
    """By name; one that says nothing takes its own away; the rest stays."""
    b = Bench()
    b.reload(rule(summary="{{ summary }}!", runbook_url="{{ '' }}", team="{{ group }}"))
    b.push(-1, details="gone")
    said = only(b).annotations
    assert said["summary"] == "g/main on push is not ready!"
    assert said["team"] == "g"
    assert said["details"] == "gone"
    assert "runbook_url" not in said


def test_they_follow_details_and_are_no_part_of_who_an_alert_is():
    """Details, and a reload of templates, change what is said, not whom it is about."""
    b = Bench()
    b.reload(rule(said="{{ details }}"))
    b.push(-1, details="one")
    first = only(b)
    b.later(5)
    b.push(-1, details="two")
    assert only(b).annotations["said"] == "two"
    b.reload(rule(said="now {{ details }}"))
    last = only(b)
    assert last.annotations["said"] == "now two"
    assert (last.fingerprint, last.starts_at) == (first.fingerprint, first.starts_at)
    assert last.resolved_at is None


def test_a_lost_source_and_a_removal_have_them_too():
    """`meaning` tells which it is."""
    b = Bench()
    b.reload(rule(said="{{ meaning }} {{ details }}"))
    b.configure()
    b.poll()
    b.fail("no route")
    b.later(30)
    assert only(b).annotations["said"] == "down no route"
