-- What was ordered, as the signed token says. The signature is not verified here: `token` is kept for who wants to.
CREATE TABLE IF NOT EXISTS commands
(
    command_id String,
    time DateTime64(3, 'UTC'),
    decided DateTime64(3, 'UTC'),
    tenant LowCardinality(String),
    identity Nullable(String),
    scope LowCardinality(String),
    subject String,
    action LowCardinality(String),
    epoch Int64,
    expires_at Nullable(DateTime64(3, 'UTC')),
    on_expiry LowCardinality(String),
    mode LowCardinality(String),
    manual Bool,
    reason String,
    limit_rpm Nullable(Int64),
    limit_tpm Nullable(Int64),
    limit_model LowCardinality(String),
    in_flight LowCardinality(String),
    http_status UInt16,
    incident_id String,
    finding_ids Array(String),
    evidence_sha256 String,
    policy LowCardinality(String),
    issuer LowCardinality(String),
    key_id LowCardinality(String),
    token String
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant, command_id)
SETTINGS non_replicated_deduplication_window = 10000;

-- What people asked for. Unverified too: a request here was heard, not necessarily obeyed; commands say what was.
CREATE TABLE IF NOT EXISTS requests
(
    request_id String,
    time DateTime64(3, 'UTC'),
    tenant LowCardinality(String),
    identity String,
    action LowCardinality(String),
    reason String,
    requested_by LowCardinality(String),
    token String
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant, request_id)
SETTINGS non_replicated_deduplication_window = 10000;

-- A gateway's word that it carried a command out (OCSF 7001). status_id: 1 success, 2 failure.
CREATE TABLE IF NOT EXISTS acknowledgements
(
    command_uid String,
    gateway LowCardinality(String),
    product LowCardinality(String),
    time DateTime64(3, 'UTC'),
    activity_id UInt8,
    status_id UInt8,
    status_detail String,
    epoch Nullable(Int64),
    propagation_ms Nullable(Float64),
    streams_aborted Nullable(Int64)
)
ENGINE = ReplacingMergeTree
ORDER BY (command_uid, gateway, time)
SETTINGS non_replicated_deduplication_window = 10000;
