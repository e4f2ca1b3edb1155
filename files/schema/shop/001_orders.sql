-- Orders as they came in, each once per source.
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    order_id text NOT NULL, -- the number the source gave it
    total_cents bigint NOT NULL CHECK (total_cents >= 0),
    currency char(3) NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    received_at timestamptz NOT NULL DEFAULT now(),
    raw jsonb NOT NULL, -- the whole message, for fields that have no column yet
    UNIQUE (source, order_id)
);

CREATE INDEX orders_received_at ON orders (received_at);

CREATE TABLE order_items (
    order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
    line integer NOT NULL CHECK (line >= 1),
    sku text NOT NULL,
    quantity integer NOT NULL CHECK (quantity >= 1),
    price_cents bigint NOT NULL CHECK (price_cents >= 0), -- of one piece
    PRIMARY KEY (order_id, line)
);
