-- One row for each finished call of a gateway. NULL counts and amounts are unknown, not zero; absent names are ''.
-- The window remembers the last inserts, so that a batch that is written again changes nothing.
CREATE TABLE IF NOT EXISTS usage_events
(
    tenant LowCardinality(String),
    identity String,
    time DateTime64(3, 'UTC'),
    event_id String,
    source LowCardinality(String),
    credential_id String,
    kind LowCardinality(String),
    workload LowCardinality(String),
    provider LowCardinality(String),
    model LowCardinality(String),
    route LowCardinality(String),
    input_tokens Nullable(UInt64),
    output_tokens Nullable(UInt64),
    cached_tokens Nullable(UInt64),
    cost_usd Nullable(Float64),
    status UInt16,
    error LowCardinality(String),
    latency_ms Nullable(Float64),
    attempt Nullable(UInt64),
    operation_id String,
    session_id String,
    end_user String,
    fingerprint String,
    tool LowCardinality(String),
    ip String,
    country LowCardinality(String),
    city LowCardinality(String),
    lat Nullable(Float64),
    lon Nullable(Float64),
    accuracy_km Nullable(Float64),
    asn Nullable(UInt32),
    user_agent LowCardinality(String),
    streaming Nullable(Bool),
    usage_missing Nullable(Bool),
    identity_trust LowCardinality(String),
    kafka_partition UInt32,
    kafka_offset UInt64
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (tenant, identity, time, event_id, source)
SETTINGS non_replicated_deduplication_window = 10000;
