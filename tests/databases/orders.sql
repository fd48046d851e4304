-- A table of 7 columns, with :rows rows, in a schema that :schema names.
CREATE SCHEMA IF NOT EXISTS :schema;
SET search_path TO :schema;

CREATE TABLE orders (
    id         bigint PRIMARY KEY,
    customer   text,
    amount     numeric(18, 2),
    status     varchar(20),
    note       text,
    created_at timestamp,
    updated_at timestamptz
);

INSERT INTO orders
SELECT
    i,
    'customer ' || i % 1000,
    i / 100.0,
    (ARRAY['open', 'paid', 'shipped', 'closed'])[1 + i % 4],
    CASE WHEN i % 5 > 0 THEN md5(i::text) END,
    timestamp '2023-01-01' + i * interval '7.000001 seconds',
    timestamptz '2024-01-01 00:00+00' + i * interval '3 seconds'
FROM generate_series(1, :rows) AS i;
