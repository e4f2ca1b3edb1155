-- The posting queue: what is being published, variants that are tried against each other, and who has let a post go on
-- (docs/decisions/0033-posting-queue.md).
CREATE TABLE shop.experiments (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    name text NOT NULL,
    winner_id bigint, -- none, though decided: the difference may be chance
    z double precision, -- of the best against the second
    decided_at timestamptz,
    UNIQUE (store_id, id),
    UNIQUE (store_id, name),
    FOREIGN KEY (store_id, winner_id) REFERENCES shop.posts (store_id, id)
);

ALTER TABLE shop.posts
    ADD COLUMN experiment_id bigint,
    ADD COLUMN approved_at timestamptz, -- a person has seen it
    ADD CONSTRAINT posts_experiment FOREIGN KEY (store_id, experiment_id) REFERENCES shop.experiments (store_id, id),
    ADD CONSTRAINT posts_variant UNIQUE (experiment_id, variant);

-- One row for each post that became due: the outbox.
CREATE TABLE shop.publications (
    post_id bigint PRIMARY KEY,
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'dead')),
    container text, -- what was prepared at the provider; it is published at most once
    prepared_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    next_at timestamptz NOT NULL DEFAULT now(),
    settled_at timestamptz,
    last_error text,
    FOREIGN KEY (store_id, post_id) REFERENCES shop.posts (store_id, id),
    CHECK ((state = 'pending') = (settled_at IS NULL))
);
CREATE INDEX publications_due ON shop.publications (next_at) WHERE state = 'pending';

CALL shop.isolate('experiments', 'publications');
