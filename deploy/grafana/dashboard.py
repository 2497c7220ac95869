#!/usr/bin/env python3
"""Prints the Grafana dashboard. `dashboard.py >trunkline.json` renews the file; `make test` fails while it is stale."""

import json

JOB = 'job="trunkline",instance=~"$instance"'
SINK = JOB + ',sink=~"$sink"'
RATE = "[$__rate_interval]"


def total(metric, labels=JOB, by=""):
    """Sum of a counter's rate over replicas."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{labels}}}{RATE}))"


def quantile(q, histogram, labels=JOB, by=""):
    by = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({by}) (rate({histogram}_bucket{{{labels}}}{RATE})))"


def highest(metric, labels=JOB, by=""):
    """Of a gauge that every replica shows for the whole."""
    return f"max{f' by ({by})' if by else ''} ({metric}{{{labels}}})"


def quantiles(histogram, labels=JOB, by="", legend=""):
    return [(quantile(q, histogram, labels, by), f"{legend} p{name}".strip()) for q, name in
            ((0.5, "50"), (0.99, "99"), (0.999, "99.9"))]


def left(bad, every, target):
    """Share of the error budget that is left: `bad` of `every`, of which `target` may be."""
    return f"1 - ({bad}) / ({every}) / {target}"


ACKNOWLEDGEMENT = (
    f'sum(increase(trunkline_ingress_pushes_total{{{JOB},outcome="unavailable"}}[30d]))'
    f" + sum(increase(trunkline_ingress_ack_seconds_count{{{JOB}}}[30d]))"
    f' - sum(increase(trunkline_ingress_ack_seconds_bucket{{{JOB},le="0.5"}}[30d]))',
    f'sum(increase(trunkline_ingress_pushes_total{{{JOB},outcome!="refused"}}[30d]))',
    0.001,
)
DELIVERY = (
    f"sum by (sink) (increase(trunkline_sink_delivery_seconds_count{{{SINK}}}[30d]))"
    f' - sum by (sink) (increase(trunkline_sink_delivery_seconds_bucket{{{SINK},le=~"60|60.0"}}[30d]))'
    f' + sum by (sink) (increase(trunkline_sink_attempts_total{{{SINK},outcome="rejected"}}[30d]))',
    f"sum by (sink) (increase(trunkline_sink_delivery_seconds_count{{{SINK}}}[30d]))"
    f' + sum by (sink) (increase(trunkline_sink_attempts_total{{{SINK},outcome="rejected"}}[30d]))',
    0.01,
)

# Rows of panels: title, description, unit, and queries with their legends.
ROWS = [
    ("How it is", "stat", [
        ("Pushes", "Acknowledged a second.", "reqps", [(total("trunkline_ingress_pushes_total", JOB + ',outcome=~"accepted|duplicate|conflict"'), "")]),
        ("Not acknowledged", "Through our fault, or later than 0.5 s; of the last hour.", "percentunit", [("trunkline:ack_errors:ratio_rate1h", "")]),
        ("Acknowledged within", "99 % of them.", "s", [(quantile(0.99, "trunkline_ingress_ack_seconds"), "")]),
        ("Oldest pending", "Of all sinks.", "s", [(highest("trunkline_sink_oldest_pending_seconds"), "")]),
        ("Dead letters", "Of all sinks.", "none", [(f"sum({highest('trunkline_sink_dead_letters', by='sink')})", "")]),
        ("Journal", "Used of its limit.", "percentunit", [(f"max(trunkline_journal_bytes{{{JOB}}} / trunkline_journal_size_max_bytes{{{JOB}}})", "")]),
        ("Replicas", "That answer the scraper.", "none", [('sum(up{job="trunkline"})', "")]),
        ("Versions", "In use.", "none", [(f"count by (version) (trunkline_build_info{{{JOB}}})", "{{version}}")]),
    ]),
    ("Error budgets", "timeseries", [
        ("Acknowledgement: left of 30 days", "99.9 % of pushes acknowledged within 0.5 s.", "percentunit", [(left(*ACKNOWLEDGEMENT), "left")]),
        ("Delivery: left of 30 days", "99 % of events confirmed within 60 s.", "percentunit", [(left(*DELIVERY), "{{sink}}")]),
        ("Burn rate", "1 uses the budget up in 30 days. Alerts look at 14.4 over an hour and 6 over six.", "none", [
            ("trunkline:ack_errors:ratio_rate1h / 0.001", "acknowledgement"), ("trunkline:delivery_errors:ratio_rate1h / 0.01", "{{sink}}")]),
    ]),
    ("Ingress", "timeseries", [
        ("Pushes by outcome", "Refused ones are the sender's mistake, unavailable ones ours.", "reqps", [(total("trunkline_ingress_pushes_total", by="outcome"), "{{outcome}}")]),
        ("Pushes by action", "", "reqps", [(total("trunkline_ingress_pushes_total", by="action"), "{{action}}")]),
        ("Time to acknowledge", "From the end of the header to the reply.", "s", quantiles("trunkline_ingress_ack_seconds")),
        ("Refused logins", "", "reqps", [(total("trunkline_auth_failures_total", by="source, reason"), "{{source}} {{reason}}")]),
        ("Connections", "", "none", [(f"sum(trunkline_ingress_connections{{{JOB}}})", "open")]),
        ("What to look at", "Pushes without a usable id, fields that could not be read, and refused pushes that are kept.", "none", [
            (total("trunkline_ingress_derived_ids_total", by="source"), "derived ids/s {{source}}"),
            (total("trunkline_normalise_warnings_total", by="action"), "warnings/s {{action}}"),
            (highest("trunkline_ingress_dead_letters"), "dead letters")]),
    ]),
    ("Journal", "timeseries", [
        ("Size", "At the limit pushes are refused.", "bytes", [
            (f"trunkline_journal_bytes{{{JOB}}}", "{{instance}}"), (highest("trunkline_journal_size_max_bytes"), "limit")]),
        ("Entries", "That some sink has not settled.", "none", [(f"trunkline_journal_entries{{{JOB}}}", "{{instance}}")]),
        ("Sync", "One sync of the storage.", "s", quantiles("trunkline_journal_sync_seconds")),
        ("Append", "From handing a push over to its durable answer.", "s", quantiles("trunkline_journal_append_seconds")),
        ("Errors", "", "none", [(f"sum by (kind) (increase(trunkline_journal_errors_total{{{JOB}}}{RATE}))", "{{kind}}")]),
        ("Dedup degraded", "1 while push ids are de-duplicated less widely than configured.", "none", [(f"trunkline_dedup_degraded{{{JOB}}}", "{{instance}}")]),
    ]),
    ("Sinks", "timeseries", [
        ("Delivered", "Confirmed by the destination.", "reqps", [(total("trunkline_sink_delivered_total", SINK, "sink"), "{{sink}}")]),
        ("Attempts that did not succeed", "", "reqps", [(total("trunkline_sink_attempts_total", SINK + ',outcome!="delivered"', "sink, outcome"), "{{sink}} {{outcome}}")]),
        ("From accepted to confirmed", "", "s", quantiles("trunkline_sink_delivery_seconds", SINK, "sink", "{{sink}}")[:2]),
        ("Pending", "Entries that the sink has not settled.", "none", [(highest("trunkline_sink_pending", SINK, "sink"), "{{sink}}")]),
        ("Oldest pending", "", "s", [(highest("trunkline_sink_oldest_pending_seconds", SINK, "sink"), "{{sink}}")]),
        ("Dead letters", "", "none", [(highest("trunkline_sink_dead_letters", SINK, "sink"), "{{sink}}")]),
        ("Away", "1 while a sink's breaker is open.", "none", [(highest("trunkline_sink_breaker_open", SINK, "sink"), "{{sink}}")]),
        ("Recordings", "Archived and lost.", "none", [
            (total("trunkline_recordings_archived_total", SINK, "sink"), "archived/s {{sink}}"),
            (f"sum by (sink) (increase(trunkline_recordings_lost_total{{{SINK}}}[1h]))", "lost/h {{sink}}")]),
    ]),
    ("Process", "timeseries", [
        ("CPU", "Cores.", "none", [(f"rate(trunkline_process_cpu_seconds_total{{{JOB}}}{RATE})", "{{instance}}")]),
        ("Memory", "Resident.", "bytes", [(f"trunkline_process_resident_memory_bytes{{{JOB}}}", "{{instance}}")]),
        ("Descriptors", "", "none", [(f"trunkline_process_open_fds{{{JOB}}}", "{{instance}}")]),
        ("Certificate", "Time until it expires.", "s", [(f"min(trunkline_tls_not_after_seconds{{{JOB}}} > 0) - time()", "left")]),
    ]),
]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(kind, place, title, description, unit, queries):
    targets = [{"refId": chr(ord("A") + n), "expr": expr, "legendFormat": legend, "datasource": DATASOURCE}
               for n, (expr, legend) in enumerate(queries)]
    made = {"type": kind, "title": title, "description": description, "gridPos": place, "datasource": DATASOURCE, "targets": targets,
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []}}
    if kind == "stat":
        made["options"] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area", "colorMode": "none"}
    else:
        made["options"] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return made


def panels():
    made, y = [], 0
    for title, kind, members in ROWS:
        made.append({"type": "row", "title": title, "collapsed": False, "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}, "panels": []})
        y += 1
        width, height = (3, 4) if kind == "stat" else (8, 8)
        for n, member in enumerate(members):
            column, line = n % (24 // width), n // (24 // width)
            made.append(panel(kind, {"h": height, "w": width, "x": column * width, "y": y + line * height}, *member))
        y += height * -(-len(members) // (24 // width))
    return [{"id": n + 1, **each} for n, each in enumerate(made)]


def variable(name, label):
    query = f'label_values(trunkline_{"sink_pending" if name == "sink" else "build_info"}{{job="trunkline"}}, {name})'
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "definition": query,
            "query": {"query": query, "refId": name}, "refresh": 2, "includeAll": True, "allValue": ".*", "multi": True,
            "current": {"text": "All", "value": "$__all"}, "sort": 1}


dashboard = {
    "title": "Trunkline", "uid": "trunkline", "tags": ["trunkline"], "schemaVersion": 39, "version": 1, "editable": True,
    "timezone": "browser", "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "graphTooltip": 1,
    "templating": {"list": [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}},
        variable("instance", "Replica"), variable("sink", "Sink")]},
    "annotations": {"list": [{
        "name": "Alerts", "enable": True, "iconColor": "red", "datasource": DATASOURCE,
        "expr": 'ALERTS{alertstate="firing",alertname=~"Trunkline.*"}', "titleFormat": "{{alertname}} {{sink}}"}]},
    "panels": panels(),
}
print(json.dumps(dashboard, indent=1))
