"""The committed support page is the generated one."""

from pathlib import Path

from neurodeploy.targets.dynapcnn.support import family_targets, support_page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "support-speck.md"


def test_the_page_is_up_to_date():
    remedy = "run: python -m neurodeploy.targets.dynapcnn.support docs/support-speck.md"
    assert PAGE.read_text(encoding="utf-8") == support_page(family_targets()), remedy


def test_the_page_has_every_rule_of_every_chip():
    page = support_page(family_targets())
    for target in family_targets():
        assert f"| {target.name} |" in page
        for rule in target.family.rules(target.chip):
            assert f"| `{rule.code}` | {rule.text} | {rule.severity} |" in page
