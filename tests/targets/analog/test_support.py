"""The committed support page is the generated one."""

from pathlib import Path

from neurodeploy.targets.analog.support import family_targets, support_page

PAGE = Path(__file__).resolve().parents[3] / "docs" / "support-analog.md"


def test_the_page_is_up_to_date():
    remedy = "run: python -m neurodeploy.targets.analog.support docs/support-analog.md"
    assert PAGE.read_text(encoding="utf-8") == support_page(family_targets()), remedy


def test_the_page_has_every_rule_and_every_number_of_every_chip():
    page = support_page(family_targets())
    for target in family_targets():
        for rule in target.code.rules(target.chip):
            assert f"| `{rule.code}` | {rule.text} | {rule.severity} |" in page
        for field, source in target.chip.sources().items():
            assert f"| {field} | " in page
            assert source.replace("|", "\\|") in page
