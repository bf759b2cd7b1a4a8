"""Figures of a database at monitoring systems, each behind an extra that it alone imports.

prometheus        a collector, and the text that Prometheus scrapes
opentelemetry     instruments of a meter
"""
