-- What the automation works from: posts to be published, mails, planned tasks; and what it has measured.
CREATE TABLE shop.posts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    product_id bigint,
    channel text NOT NULL CHECK (channel IN ('instagram', 'instagram_story', 'facebook', 'telegram')),
    caption text NOT NULL DEFAULT '',
    media_url text,
    variant char(1) NOT NULL DEFAULT 'A' CHECK (variant BETWEEN 'A' AND 'Z'), -- of an A/B test
    confidence numeric(4, 3) CHECK (confidence BETWEEN 0 AND 1), -- of who has written it; low: a person looks first
    status text NOT NULL DEFAULT 'draft'
        CHECK (status IN ('draft', 'approval', 'scheduled', 'publishing', 'published', 'failed', 'cancelled')),
    scheduled_at timestamptz,
    published_at timestamptz,
    external_id text, -- the number that the channel gave it
    performance jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (store_id, id),
    UNIQUE (store_id, channel, external_id),
    FOREIGN KEY (store_id, product_id) REFERENCES shop.products (store_id, id),
    CHECK (status <> 'scheduled' OR scheduled_at IS NOT NULL),
    CHECK ((status = 'published') = (published_at IS NOT NULL))
);
CREATE INDEX posts_due ON shop.posts (scheduled_at) WHERE status = 'scheduled';

CREATE TABLE shop.email_templates (
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    name text NOT NULL,
    language text NOT NULL DEFAULT 'en' CHECK (language ~ '^[a-z]{2}(-[A-Z]{2})?$'),
    subject text NOT NULL,
    body text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (store_id, name, language)
);

CREATE TABLE shop.scheduled_tasks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    task text NOT NULL,
    key text NOT NULL, -- the same work is not planned twice
    payload jsonb NOT NULL DEFAULT '{}',
    due_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'running', 'done', 'failed', 'cancelled')),
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    last_error text,
    finished_at timestamptz,
    UNIQUE (store_id, task, key)
);
CREATE INDEX scheduled_tasks_due ON shop.scheduled_tasks (due_at) WHERE state = 'planned';

CREATE TABLE shop.metrics (
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    name text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    labels jsonb NOT NULL DEFAULT '{}',
    value double precision NOT NULL
);
CREATE INDEX metrics_name ON shop.metrics (store_id, name, at);

CREATE TABLE shop.api_calls (
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    api text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    operation text NOT NULL,
    status integer, -- of the answer; none where there was none
    milliseconds integer CHECK (milliseconds >= 0),
    cost integer NOT NULL DEFAULT 1 CHECK (cost >= 0)
);
CREATE INDEX api_calls_api ON shop.api_calls (store_id, api, at);

CALL shop.isolate('posts', 'email_templates', 'scheduled_tasks', 'metrics', 'api_calls');
