"""The report of a comparison of ways: tables, plots, `report.md`, `report.ko.md` and a self-contained `report.html`."""
