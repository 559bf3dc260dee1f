"""Write a comparison's report: `comparison.json`, `report.md`, `report.ko.md`, `report.html`, `plots/`."""

from pathlib import Path

from jaxplm.data.atomic import new_file, write_text
from jaxplm.reporting.comparison import plots
from jaxplm.reporting.comparison.comparison import Comparison
from jaxplm.reporting.comparison.findings import Findings, find
from jaxplm.reporting.comparison.markdown import markdown
from jaxplm.reporting.comparison.page import html
from jaxplm.reporting.comparison.recommendation import recommend
from jaxplm.reporting.comparison.standing import standing
from jaxplm.reporting.comparison.stored import write_comparison


def write_reports(workdir: Path, comparison: Comparison) -> None:
    """Write a comparison and everything that shows it into its workdir.

    Files of an earlier call are replaced. `report.html` needs none of the others.
    """
    write_comparison(workdir / "comparison.json", comparison)
    findings = find(comparison, standing(comparison))
    verdict = recommend(findings)
    drawn = _write_plots(workdir / "plots", findings)
    for language, name in (("en", "report.md"), ("ko", "report.ko.md")):
        write_text(workdir / name, markdown(findings, verdict, language, drawn))
    write_text(workdir / "report.html", html(findings, verdict))


def _write_plots(directory: Path, findings: Findings) -> dict[str, str]:
    """Draw the plots of the Markdown reports and return {name: path from the workdir}; remove earlier ones."""
    comparison = findings.comparison
    for old in directory.glob("*.png"):
        old.unlink()
    directory.mkdir(parents=True, exist_ok=True)
    wanted = [
        plots.differences(findings),
        plots.quality_cost(findings),
        plots.learning_curves(findings),
        *(plots.few_labels(findings, method) for method in findings.methods),
        plots.forgetting(comparison.encoders),
        plots.vocabulary(comparison.vocabularies) if comparison.vocabularies else None,
    ]
    for plot in filter(None, wanted):
        with new_file(directory / f"{plot.name}.png") as partial:
            plots.png(plot, partial)
    return {plot.name: f"{directory.name}/{plot.name}.png" for plot in wanted if plot}
