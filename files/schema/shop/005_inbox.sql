-- inbox: what came in from outside, once, as it was. outbox: who has to be handed it, and how far that is (docs/decisions/0031-intake.md).
CREATE TABLE shop.inbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    endpoint text NOT NULL,
    event_id text NOT NULL, -- the sender's
    topic text NOT NULL,
    order_key text NOT NULL DEFAULT '', -- events that share it are handed on in sequence; empty: on their own
    fingerprint bytea, -- of the body, where the sender does not sign the id
    occurred_at timestamptz,
    received_at timestamptz NOT NULL DEFAULT now(),
    body bytea, -- removed when it is old; the row stays longer, to know the event again
    UNIQUE (endpoint, event_id),
    UNIQUE (store_id, id)
);
CREATE UNIQUE INDEX inbox_fingerprint ON shop.inbox (endpoint, fingerprint) WHERE fingerprint IS NOT NULL;
CREATE INDEX inbox_payloads ON shop.inbox (received_at) WHERE body IS NOT NULL;

CREATE TABLE shop.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    inbox_id bigint NOT NULL,
    consumer text NOT NULL,
    order_key text NOT NULL DEFAULT '',
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'dead')),
    reason text CHECK (reason IN ('refused', 'expired', 'unreadable', 'no_consumer')),
    last_error text,
    attempts integer NOT NULL DEFAULT 0,
    replays integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    next_at timestamptz NOT NULL DEFAULT now(),
    settled_at timestamptz,
    UNIQUE (inbox_id, consumer),
    FOREIGN KEY (store_id, inbox_id) REFERENCES shop.inbox (store_id, id),
    CHECK ((state = 'dead') = (reason IS NOT NULL)),
    CHECK ((state = 'pending') = (settled_at IS NULL))
);
CREATE INDEX outbox_due ON shop.outbox (consumer, next_at, id) WHERE state = 'pending';
CREATE INDEX outbox_sequence ON shop.outbox (consumer, store_id, order_key, id) WHERE state = 'pending' AND order_key <> '';
CREATE INDEX outbox_settled ON shop.outbox (settled_at) WHERE state <> 'pending';

CALL shop.isolate('inbox', 'outbox');
