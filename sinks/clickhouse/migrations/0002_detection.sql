-- One detector's word on one identity. `evidence` is the whole of it as JSON.
CREATE TABLE IF NOT EXISTS findings
(
    finding_id String,
    time DateTime64(3, 'UTC'),
    tenant LowCardinality(String),
    identity String,
    kind LowCardinality(String),
    severity LowCardinality(String),
    score Float64,
    detector LowCardinality(String),
    window LowCardinality(String),
    observed Float64,
    baseline Float64,
    reason String,
    usd_per_minute Float64,
    baseline_usd_per_minute Float64,
    deterministic Bool,
    extreme Bool,
    evidence String
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant, finding_id)
SETTINGS non_replicated_deduplication_window = 10000;

-- A tenant's sums in one partition of llm.usage over the 10 s that end at `bucket_end`.
CREATE TABLE IF NOT EXISTS tenant_buckets
(
    tenant LowCardinality(String),
    bucket_end DateTime64(3, 'UTC'),
    usage_partition UInt32,
    time DateTime64(3, 'UTC'),
    identities Int64,
    requests Int64,
    failures Int64,
    tokens Float64,
    cost_usd Float64,
    denied Map(String, Int64)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(bucket_end)
ORDER BY (tenant, bucket_end, usage_partition)
SETTINGS non_replicated_deduplication_window = 10000;

-- An incident's states; FINAL gives the last. A tenant's incident has no identity.
CREATE TABLE IF NOT EXISTS incidents
(
    incident_id String,
    tenant LowCardinality(String),
    identity Nullable(String),
    opened DateTime64(3, 'UTC'),
    updated DateTime64(3, 'UTC'),
    closed Nullable(DateTime64(3, 'UTC')),
    state LowCardinality(String),
    kinds Array(LowCardinality(String)),
    risk Float64,
    severity LowCardinality(String),
    usd_per_minute Float64,
    baseline_usd_per_minute Float64,
    headline String,
    response LowCardinality(String),
    finding_ids Array(String),
    command_ids Array(String),
    raised Array(DateTime64(3, 'UTC'))
)
ENGINE = ReplacingMergeTree(updated)
ORDER BY (tenant, incident_id)
SETTINGS non_replicated_deduplication_window = 10000;
