"""OpenSIPS Status/Report as Prometheus metrics, Alertmanager alerts, webhooks and a page."""

__version__ = "0.1.0"
