-- What to bill: each event once, and costs as the decimals that the gateway wrote, so that sums do not depend on order.
CREATE VIEW IF NOT EXISTS chargeback AS
SELECT
    toDate(e.time) AS day,
    e.tenant AS tenant,
    e.identity AS identity,
    e.model AS model,
    count() AS requests,
    countIf(e.error = 'tripswitch_denied') AS denied,
    countIf(isNull(e.input_tokens) AND isNull(e.output_tokens)) AS requests_without_usage,
    sum(ifNull(e.input_tokens, 0)) AS input_tokens,
    sum(ifNull(e.cached_tokens, 0)) AS cached_tokens,
    sum(ifNull(e.output_tokens, 0)) AS output_tokens,
    sum(toDecimal128(toString(ifNull(e.cost_usd, 0)), 12)) AS cost_usd
FROM usage_events AS e FINAL
GROUP BY day, tenant, identity, model;

-- Each incident in its last state with its commands, and how long they took to reach the gateways.
CREATE VIEW IF NOT EXISTS incident_responses AS
WITH
    first_word AS
    (
        SELECT
            command_uid,
            gateway,
            argMin(status_id, time) AS status,
            argMin(propagation_ms, time) AS propagation
        FROM acknowledgements FINAL
        GROUP BY command_uid, gateway
    ),
    reached AS
    (
        SELECT
            c.incident_id AS incident_id,
            countIf(w.status = 1) AS applied,
            countIf(w.status = 2) AS refused,
            quantileExactIf(0.5)(w.propagation, w.status = 1) AS p50,
            quantileExactIf(0.99)(w.propagation, w.status = 1) AS p99
        FROM commands AS c FINAL
        INNER JOIN first_word AS w ON w.command_uid = c.command_id
        GROUP BY incident_id
    ),
    ordered AS
    (
        SELECT
            incident_id,
            arraySort(x -> x.2, groupArray((command_id, time, action, scope, subject, mode, manual))) AS commands
        FROM commands FINAL
        GROUP BY incident_id
    )
SELECT
    i.incident_id AS incident_id,
    i.tenant AS tenant,
    i.identity AS identity,
    i.opened AS opened,
    i.updated AS updated,
    i.closed AS closed,
    i.state AS state,
    i.kinds AS kinds,
    i.risk AS risk,
    i.severity AS severity,
    i.usd_per_minute AS usd_per_minute,
    i.baseline_usd_per_minute AS baseline_usd_per_minute,
    i.headline AS headline,
    i.response AS response,
    i.finding_ids AS finding_ids,
    i.raised AS raised,
    o.commands AS commands,
    r.applied AS acknowledged,
    r.refused AS refused,
    r.p50 AS propagation_p50_ms,
    r.p99 AS propagation_p99_ms
FROM incidents AS i FINAL
LEFT JOIN ordered AS o ON o.incident_id = i.incident_id
LEFT JOIN reached AS r ON r.incident_id = i.incident_id;
