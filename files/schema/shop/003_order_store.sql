-- Money is a whole number of the currency's smallest unit, whatever it is called there (cents; yen), beside that currency.
CREATE TABLE shop.customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    email text NOT NULL CHECK (email LIKE '%_@_%' AND length(email) <= 254),
    name text NOT NULL DEFAULT '',
    phone text,
    address jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (store_id, id)
);
CREATE UNIQUE INDEX customers_email ON shop.customers (store_id, lower(email));

CREATE TABLE shop.products (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    handle text NOT NULL, -- what it is called in addresses
    title text NOT NULL,
    category text NOT NULL,
    description text NOT NULL DEFAULT '',
    status text NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'active', 'archived')),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (store_id, id),
    UNIQUE (store_id, handle)
);
CREATE INDEX products_category ON shop.products (store_id, category);

-- What is sold: each product has at least one.
CREATE TABLE shop.variants (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    product_id bigint NOT NULL,
    sku text NOT NULL,
    title text NOT NULL DEFAULT '',
    price_cents bigint NOT NULL CHECK (price_cents >= 0),
    currency char(3) NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    UNIQUE (store_id, id),
    UNIQUE (store_id, sku),
    FOREIGN KEY (store_id, product_id) REFERENCES shop.products (store_id, id) ON DELETE CASCADE
);
CREATE INDEX variants_product ON shop.variants (store_id, product_id);

CREATE TABLE shop.inventory (
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    variant_id bigint NOT NULL,
    location text NOT NULL DEFAULT 'main',
    quantity integer NOT NULL DEFAULT 0 CHECK (quantity >= 0),
    reserved integer NOT NULL DEFAULT 0 CHECK (reserved BETWEEN 0 AND quantity), -- of these, promised to orders
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (store_id, variant_id, location),
    FOREIGN KEY (store_id, variant_id) REFERENCES shop.variants (store_id, id) ON DELETE CASCADE
);

CREATE TABLE shop.carts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    customer_id bigint,
    token text NOT NULL, -- how the source knows it
    items jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(items) = 'array'),
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'ordered', 'abandoned')),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (store_id, token),
    FOREIGN KEY (store_id, customer_id) REFERENCES shop.customers (store_id, id)
);
CREATE INDEX carts_open ON shop.carts (updated_at) WHERE state = 'open';
CREATE INDEX carts_customer ON shop.carts (store_id, customer_id);

ALTER TABLE shop.orders
    ADD COLUMN customer_id bigint,
    ADD CONSTRAINT orders_customer FOREIGN KEY (store_id, customer_id) REFERENCES shop.customers (store_id, id);
CREATE INDEX orders_of_customer ON shop.orders (store_id, customer_id);

CREATE TABLE shop.payments (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    order_id bigint NOT NULL,
    provider text NOT NULL,
    reference text NOT NULL, -- the number that the provider gave it
    amount_cents bigint NOT NULL, -- below 0: paid back
    currency char(3) NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    status text NOT NULL CHECK (status IN ('pending', 'paid', 'failed', 'refunded', 'disputed')),
    at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (store_id, provider, reference),
    FOREIGN KEY (store_id, order_id) REFERENCES shop.orders (store_id, id)
);
CREATE INDEX payments_order ON shop.payments (store_id, order_id);

CREATE TABLE shop.shipments (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store_id bigint NOT NULL DEFAULT shop.current_store() REFERENCES shop.stores,
    order_id bigint NOT NULL,
    carrier text NOT NULL,
    tracking_number text NOT NULL,
    status text NOT NULL DEFAULT 'announced'
        CHECK (status IN ('announced', 'in_transit', 'out_for_delivery', 'delivered', 'returned', 'failed')),
    shipped_at timestamptz,
    delivered_at timestamptz,
    UNIQUE (store_id, carrier, tracking_number),
    FOREIGN KEY (store_id, order_id) REFERENCES shop.orders (store_id, id)
);
CREATE INDEX shipments_order ON shop.shipments (store_id, order_id);

CALL shop.isolate('customers', 'products', 'variants', 'inventory', 'carts', 'payments', 'shipments');
